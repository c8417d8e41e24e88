"""Typed configurations, resolved from command line, JSON files and defaults.

Nothing here imports torch or numpy: ``--help`` and config errors appear at once.
"""
