"""The recipes that are shipped, by name."""
