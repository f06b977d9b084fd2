"""The status page, with health, metrics and the receiver of webhooks.

Reading order: `app` (the routes), `guard` (who may), `status` (what there is to tell), `page` with `markup` (as HTML),
`undoing` (runs taken back from the page), `server` (HTTP).
"""
