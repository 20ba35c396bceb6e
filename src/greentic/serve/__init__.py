"""The worker: boot, route, serve, drain."""
