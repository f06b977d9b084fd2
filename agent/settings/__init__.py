"""What is configured: service.toml, flags and the environment become frozen values here, and nowhere else."""
