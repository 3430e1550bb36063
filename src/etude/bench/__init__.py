"""This project measured beside others and beside itself, on the machine it runs on. One file a comparison."""
