"""Which label of the task a model's label becomes: by name, by map, by type, with its attributes and sublabels."""
