"""One change of one environment: how every verb runs, and the verbs of the document itself (host, trust root, packs, delivery)."""
