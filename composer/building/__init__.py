"""Building: a plan of all composites, rendered in parallel, resumed where it stopped."""
