"""A process that decodes videos and may be ended: what a video does to it, no run feels."""
