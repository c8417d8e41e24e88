"""Evaluation sets, and encoding of videos and texts; tasks score them."""
