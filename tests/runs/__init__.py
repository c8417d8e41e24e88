"""Tests of how runs are put together."""
