"""The worker's process: boot, provision, serve, stop."""
