"""Notes on paper: what can be printed and played from."""
