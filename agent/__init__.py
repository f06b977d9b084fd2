"""cvat-sidecar: models that live outside CVAT, connected to a CVAT server that a team already runs.

Read in this order: `annotate` (the one flow), `domain` (the nouns), `errors`, `contract` (what a model author
writes), then the steps in the order in which they happen: `runs`, `cvat.work`, `models`, `plan` with `labels` and
`selection`, `cvat.frames`, `host`, `predict`, `filters`, `annotations`, `sink`, `cvat.uploads`, `ledger`.
"""
