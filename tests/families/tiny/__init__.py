"""A second family, which only tests have: a dual encoder that shares nothing with ALPRO."""
