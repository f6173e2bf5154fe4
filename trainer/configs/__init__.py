"""The training configurations that are shipped, each a TOML file."""
