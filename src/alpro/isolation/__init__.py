"""Decoding in a process that may be ended: a video that hangs or crashes it ends no run."""
