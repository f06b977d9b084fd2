"""Everything that speaks HTTP to CVAT; nothing else does."""
