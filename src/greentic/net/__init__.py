"""The one way out: addresses, egress rules, dialling, requests, small documents."""
