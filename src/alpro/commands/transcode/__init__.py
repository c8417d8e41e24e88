"""Transcoding videos so that training reads them fast."""
