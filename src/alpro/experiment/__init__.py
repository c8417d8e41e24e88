"""Experiments, assembled from configs: the only place where a config meets constructors.

``run`` has the order of a run; each task has a module of its own (``retrieval``).
"""
