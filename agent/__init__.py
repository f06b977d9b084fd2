"""cvat-sidecar: models that live outside CVAT, connected to a CVAT server that a team already runs.

Read in this order: `annotate` (the one flow), `domain` (the nouns), `errors`, `contract` (what a model author
writes), then the steps in the order in which `annotate` calls them: `plan`, `labels`, `selection`, `cvat.frames`,
`pipeline`, `host`, `predict`, `filters`, `annotations`, `cvat.uploads`, `ledger`.
"""
