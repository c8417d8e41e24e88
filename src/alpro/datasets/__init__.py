"""From annotation files and video folders to batches of frames and tokens."""
