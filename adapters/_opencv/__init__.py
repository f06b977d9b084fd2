"""Models that OpenCV brings along: cascades, trackers, segmentation by hand-made rules."""
