"""`.gtpack`: bytes, and a loaded pack."""
