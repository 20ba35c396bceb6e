"""An environment as an artifact: what is pushed, where it lies, how it is read and followed."""
