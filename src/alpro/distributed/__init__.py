"""Running on one process or many: the only folder that imports a communication backend."""
