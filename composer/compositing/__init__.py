"""Compositing: a foreground, its trimaps and a background in, a composite out."""
