"""Typed configurations, and how command line, JSON files and defaults become one of them.

Nothing here imports torch or numpy: ``--help`` and every complaint about a config come at once.
"""
