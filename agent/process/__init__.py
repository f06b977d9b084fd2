"""The service as a process: what it opens, how long it lives, what it tells of itself. Begin with `service`."""
