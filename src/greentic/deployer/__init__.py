"""Binding an environment to a Kubernetes cluster, and making the cluster match it."""
