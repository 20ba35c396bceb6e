"""What an operator sees of an environment at a terminal: rows from documents, and a layout that fits the width."""
