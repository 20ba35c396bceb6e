"""The two programs: arguments in, envelope or banner out."""
