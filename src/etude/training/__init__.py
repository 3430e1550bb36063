"""Training: batches, optimisers, recipes, the loop, checkpoints, metrics, and the n-gram models to beat."""
