"""The `op` verbs, one module a noun: payload in, result out, every change under the lock and in the audit log."""
