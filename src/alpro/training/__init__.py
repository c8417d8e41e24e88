"""The training loop and its checkpoints, resume, run folder and reporting."""
