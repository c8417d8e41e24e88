"""Losses as pure functions of tensors: no communication, no logging, generators passed in."""
