"""The engines: the same model in plain Python, NumPy, Numba and PyTorch; `engine` is what they share."""
