"""What happened to an environment: its audit read back, its chain checked, two documents compared."""
