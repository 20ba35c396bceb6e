"""Many changes of an environment as one wish."""
