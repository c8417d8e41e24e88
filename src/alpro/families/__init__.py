"""Model families: one folder each, with its models and objectives."""
