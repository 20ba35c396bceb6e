"""`.gtbundle`: bytes and structures, a bounded SquashFS reader and a deterministic writer."""
