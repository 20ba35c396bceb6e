"""Flows: the graph and one turn, as functions of values."""
