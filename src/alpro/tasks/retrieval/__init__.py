"""Text-to-video retrieval."""
