"""Making things before there is an environment: components, packs, bundles, signatures; looking into them; running a flow."""
