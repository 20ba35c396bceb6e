"""The environment directory: lock, durable writes, backups, audit, staging and materializing."""
