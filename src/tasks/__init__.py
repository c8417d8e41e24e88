"""Finetuning and inference: one entry script and one Task for each downstream task."""
