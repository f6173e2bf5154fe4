"""Fetching: openly licensed pictures out of packages, each proven by its hash."""
