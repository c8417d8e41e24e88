"""Benchmarks: decoding, loading, annotations, scaling."""
