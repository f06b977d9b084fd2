"""cvat-sidecar: models that live outside CVAT, connected to a CVAT server that a team already runs.

Read in this order: `annotate` (the one flow), `domain` (the nouns), `errors`, `contract` (what a model author
writes), then the steps in the order in which they happen: `runs.running`, `cvat.work`, `models.loading`, `plan` with
`labels` and `selection`, `cvat.frames`, `models.host`, `predict`, `filters`, `annotations`, `sink`, `cvat.uploads`,
`ledger`.

The service puts doors before the same steps: `process.service` opens `doors.queue`, `doors.gateway` and `doors.watch`,
which share a `pool` of models, `lanes`, `activity`, and for people at CVAT's editor `interaction` and `tracking`.
A new model source goes to `adapters/`, a new way to build models of others to `compose`, a new door to `doors`.
"""
