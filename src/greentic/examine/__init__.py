"""Looking at an environment: does it hold (`doctor`), what runs (`status`), can workers prove it (`verify`), what changed (`log`)."""
