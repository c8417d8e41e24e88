"""The family of CLIP-ViP: CLIP with video proxies, or with the mean over frames."""
