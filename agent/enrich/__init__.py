"""Shapes that a task already has, looked at again: attributes, texts, labels, masks, skeletons, identities.

shapes       CVAT's shapes as what a step of a chain looks at, and what came of them as changes to the job
identities   which of many looks are of the same one
runs         a run of `enrich` from beginning to end
"""
