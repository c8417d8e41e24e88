"""The training loop and what it needs: checkpoints, precision, reporting, seeding."""
