"""What a component is called with and what it may ask for."""
