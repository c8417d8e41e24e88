"""The order of a run (``run``), and what joins a config with constructors."""
