"""Console: what commands print and how they end. The only wing that knows click and rich."""
