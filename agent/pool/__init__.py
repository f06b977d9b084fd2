"""The models of one process, each loaded once and lent to all who use it: begin with `pool`."""
