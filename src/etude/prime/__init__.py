"""A program as a prime number, and back. The prime can be sung, too."""
