"""The environment directory: the document, its backups, the audit, the ledger, what a kill leaves, and the keys that lie beside it."""
