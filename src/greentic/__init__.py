"""greentic: digital workers that start empty, pull a pinned bundle, verify it and serve it."""

__version__ = "0.2.0"
