"""One run from its beginning to its end, and what can be done with it afterwards: begin with `running`."""
