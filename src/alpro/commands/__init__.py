"""Subcommands of ``alpro``; ``registry`` lists them."""
