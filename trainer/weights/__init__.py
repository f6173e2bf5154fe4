"""Weights that come with the package, as safetensors in half precision, and the card that says what made them."""
