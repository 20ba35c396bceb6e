"""What an operator answers about the shape and the exposure of pods, as typed values that were checked as an API server checks them."""
