"""The component engine: compile once, call in a fresh instance under limits. It knows no packs, and whoever calls brings the imports."""
