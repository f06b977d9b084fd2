"""What a model costs beside what it gains: `cvat-sidecar models bench`."""
