"""What a cluster is to hold of an environment, and how that differs from what it holds: functions over plain objects. Pure."""
