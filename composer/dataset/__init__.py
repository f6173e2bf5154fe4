"""Dataset: the format. Shards are written, proved and read here; nothing here knows what makes them."""
