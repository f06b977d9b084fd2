"""What is done with shapes: turning, clipping, outlining, and the forms in which CVAT writes them."""
