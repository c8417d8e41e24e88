"""Configs joined with constructors: experiments, and data sets and weights of any task."""
