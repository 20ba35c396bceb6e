"""From a serving plan to unpacked revisions on this disk."""
