"""A materialized revision made ready: loaded packs, and one turn. What `warm` and the worker share."""
