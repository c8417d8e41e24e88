"""Converters from the annotation files of public data sets to the project's JSON lines."""
