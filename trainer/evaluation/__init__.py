"""Evaluation: mattes compared with their truth."""
