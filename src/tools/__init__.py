"""Command-line helpers, run as ``python -m src.tools.<name>``."""
