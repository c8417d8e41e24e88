"""Checking data before it is trained on: annotations, videos, and what they share.

``sources`` resolves the sets of a config or of flags; ``annotations`` reads them, ``texts`` checks
their texts, ``media`` locates the videos, ``probe`` inspects one file and ``probe_pool`` all of
them, ``verdicts`` turns measurements into ``findings``; ``report`` and ``page`` present these.
"""
