"""The component host: compile once, call in a fresh instance under limits, answer the imports that policy allows."""
