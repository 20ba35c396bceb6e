"""The HTTP server: what stands on the wire, and connections with their bounds. It knows no worker and no console."""
