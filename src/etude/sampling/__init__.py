"""From logits to the next token, and where a text stops: settings, a mask, stop strings. No engine in here."""

from .sampler import GREEDY, Sampling, SamplingError, choose, log_probability, probabilities
from .stops import StopFilter

__all__ = [
    "GREEDY",
    "Sampling",
    "SamplingError",
    "StopFilter",
    "choose",
    "log_probability",
    "probabilities",
]
