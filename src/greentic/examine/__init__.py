"""Looking at an environment: does it hold (`doctor`), can workers prove it (`verify`), what changed (`log`)."""
