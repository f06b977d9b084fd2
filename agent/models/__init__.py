"""From a model reference to a loaded model (`loading`) behind a queue (`host`)."""
