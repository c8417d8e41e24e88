"""The only place where a config meets constructors.

``model`` and ``data`` build what tasks share, ``training`` the loop around any task, and a module
for each task (``retrieval``) what is its own.
"""
