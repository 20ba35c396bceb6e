"""The Kubernetes deployer: render and plan (pure), apply and wait (over the API server)."""
