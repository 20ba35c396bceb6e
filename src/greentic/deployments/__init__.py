"""What is deployed: bundles with their routes, revisions of them, who gets how much traffic, and what workers say they serve."""
