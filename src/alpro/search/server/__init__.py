"""Page and JSON API to search an index, served to browsers."""
