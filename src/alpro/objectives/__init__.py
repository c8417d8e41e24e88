"""Objectives over matching pairs, for any dual encoder."""
