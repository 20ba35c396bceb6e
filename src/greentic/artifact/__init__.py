"""Bytes and structures: SquashFS images, `.gtbundle`, `.gtpack`. Bounded readers, deterministic writers."""
