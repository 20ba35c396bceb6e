"""The operator in a cluster: it watches one wish and keeps the namespace as the wish says."""
