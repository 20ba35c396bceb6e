"""The API server of a cluster: connecting, sending, applying, waiting."""
