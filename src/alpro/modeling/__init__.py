"""Parts of models, and the roles that models play; families put models together."""
