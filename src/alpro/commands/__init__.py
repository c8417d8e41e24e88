"""Command-line helpers, run as ``python -m alpro.commands.<name>``."""
