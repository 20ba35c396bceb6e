"""The page that an operator looks at: what runs, why it may run, how it does, what changed, and a chat with it."""
