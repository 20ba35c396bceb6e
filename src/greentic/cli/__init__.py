"""The three programs (`gtc`, `greentic-start`, `greentic-operator`): arguments in, envelope or banner out."""
