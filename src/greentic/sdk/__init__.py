"""What components written in Python are built with: the interface in `wit/`, and `guest/`, which runs inside them."""
