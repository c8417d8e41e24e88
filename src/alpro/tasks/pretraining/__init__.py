"""Pretraining on captioned videos and images, for any family's losses."""
