"""OneSearch: generative e-commerce search on an open, pluggable core."""

__version__ = "0.1.0"
