"""Sources: foregrounds, alphas, trimaps and backgrounds, from files or drawn."""
