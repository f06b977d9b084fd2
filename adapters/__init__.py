"""One module (or folder) a source of models; `agent.models.loading` loads them by scheme, at load time."""
