"""Search in one's own videos: index, queries, moments."""
