"""Transforms of frames: normalisation, crops, RandAugment."""
