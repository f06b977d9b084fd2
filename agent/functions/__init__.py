"""Models as native functions of CVAT's queue: what is told of them, and under which id they are registered."""
