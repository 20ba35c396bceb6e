"""What waits between the turns of a conversation."""
