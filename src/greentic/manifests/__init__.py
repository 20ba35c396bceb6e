"""The objects of an environment, and of its operator, as files: for `kubectl apply`, Flux and Argo CD. Never asks a cluster."""
