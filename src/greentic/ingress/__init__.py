"""One request, from the socket to the reply."""
