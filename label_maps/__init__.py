"""Label vocabularies and ready-made label maps, one TOML file each; docs/label-maps.md describes the form."""
