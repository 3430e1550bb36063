"""From logits to the next token: temperature, top-k, top-p and a mask. Arrays only, no engine."""

from .sampler import GREEDY, Sampling, SamplingError, choose, probabilities

__all__ = ["GREEDY", "Sampling", "SamplingError", "choose", "probabilities"]
