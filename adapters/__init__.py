"""One module (or folder) a source of models; `agent.models` loads them by scheme, at load time."""
