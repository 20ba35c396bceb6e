"""The environment document: types, ids, lifecycle, traffic arithmetic, validation, projection. Pure; no input or output."""
