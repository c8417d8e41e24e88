"""Training objectives for any model that has the role they ask for."""
