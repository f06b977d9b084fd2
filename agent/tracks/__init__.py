"""Rectangles of single frames made into tracks.

link        which sightings are of the same thing: an association library's tracks, then stitched over gaps
stitch      the second half of it: pieces of tracks put together by motion, size and appearance
keyframes   which frames of a track need a keyframe, and where it is outside
groups      the groups of rectangles, as their tracks keep them
encode      CVAT's form, cut at the borders of jobs
"""
