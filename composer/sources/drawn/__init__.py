"""Drawn: foregrounds and backgrounds out of noise and strokes."""
