"""CVAT's auto-annotation functions and our models, translated into each other."""
