"""``python -m alpro``: the same as the command ``alpro``."""

from importlib import import_module

if __name__ == "__main__":
    import_module("alpro.commands.main").run()
