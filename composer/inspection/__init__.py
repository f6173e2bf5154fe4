"""Inspection: a finished dataset summarised, verified, compared, reported and exported."""
