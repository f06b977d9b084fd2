"""What a task already has, looked at again: attributes, texts, labels, identities; of shapes also masks, skeletons.

places       which shapes are looked at, and which tracks, on which of their frames
looks        what the model makes of them
shapes       CVAT's shapes as what a step of a chain looks at, and what came of them as changes to the job
votes        what several looks at a track make of it
identities   which of many looks are of the same one
runs         a run of `enrich` from beginning to end
"""
