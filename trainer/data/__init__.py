"""Data: shards to batches of crops."""
