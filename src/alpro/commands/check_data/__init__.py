"""Checking data before it is trained on: annotations, videos, and what they share.

``sources`` tells what a config or the flags name; ``annotated`` reads it, ``texts`` and ``splits``
look at what is written, ``probe`` at single files (``probing`` at all of them), ``judging`` at what
was measured; ``report`` and ``page`` tell the ``findings``.
"""
