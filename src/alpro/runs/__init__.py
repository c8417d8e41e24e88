"""The order of a run from top to bottom, and its steps: checks, plan, trainer, results."""
