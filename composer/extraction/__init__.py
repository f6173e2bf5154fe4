"""Extraction: foreground colours and alphas out of pictures that were photographed whole."""
