"""A video-and-language training framework: ALPRO (CVPR 2022), reimplemented."""

__version__ = "0.1.0"
