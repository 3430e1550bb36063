"""The engines: the same model in NumPy (`array`) and PyTorch (`tensor`)."""
