"""Where bundles come from: references, sources, the streaming fetch, and the embedded distributor."""
