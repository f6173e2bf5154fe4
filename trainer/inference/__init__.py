"""Inference: alphas of whole pictures."""
