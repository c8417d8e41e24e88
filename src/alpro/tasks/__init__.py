"""Tasks, one folder each: config, rows and batches, objective, metrics, evaluation, definition."""
