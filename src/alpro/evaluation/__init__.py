"""Scoring texts against videos, shared by validation, inference and search."""
