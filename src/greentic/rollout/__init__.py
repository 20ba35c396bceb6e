"""Moving traffic to a revision step by step: what a ramp decides, and carrying it out."""
