"""The loss of a language model without its logits: head, cross entropy and their gradients, some rows at a time.

Logits of 32 windows of GPT-2 are 6.6 GB in float32, and most of what a step of a small GPT moves. Here the gradient of
rows is computed as soon as their logits are, so that no other logits need be kept, nor computed a second time.
Shapes: n tokens, d is n_embd, V the vocabulary, P is V rounded up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

ROWS = 8192  # of logits at a time
_MULTIPLE = 128  # of which a GPU's tiles are; GPT-2's 50,257 rows would be read unaligned


class _MeanNats(torch.autograd.Function):
    """Mean nats of targets [n] after hidden states x [n, d] under a head [V, d]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        n, vocab_size, ctx.dtype = len(x), len(head), x.dtype
        x, cast = x.to(dtype), F.pad(head.to(dtype), (0, 0, 0, -vocab_size % _MULTIPLE))  # [n, d], [P, d]
        columns = torch.arange(len(cast), device=x.device)  # [P]
        total = torch.zeros((), device=x.device)
        x_gradients, head_gradient = [], torch.zeros(cast.shape, device=x.device)  # [r, d] each, [P, d]
        for at in range(0, n, ROWS):
            rows, wanted = x[at : at + ROWS], targets[at : at + ROWS, None]  # [r, d], [r, 1]
            logits = torch.where(columns < vocab_size, (rows @ cast.T).float(), -torch.inf)  # [r, P]
            normaliser = logits.logsumexp(dim=1, keepdim=True)  # [r, 1]
            total = total + (normaliser - logits.gather(1, wanted)).sum()
            logits_gradient = ((logits - normaliser).exp() - (columns == wanted).float()) / n  # [r, P]
            logits_gradient = logits_gradient.to(dtype)
            x_gradients.append(logits_gradient @ cast)
            head_gradient = head_gradient + (logits_gradient.T @ rows).float()
        ctx.save_for_backward(torch.cat(x_gradients).to(ctx.dtype), head_gradient[:vocab_size])
        return total / n

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_gradient, head_gradient = ctx.saved_tensors
        return x_gradient * above[0], head_gradient * above[0], None, None


def mean_nats(x: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Mean nats of targets [n] after hidden states x [n, d] under a head [V, d], products in autocast's precision."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    loss: Tensor = _MeanNats.apply(x, head, targets, dtype)  # type: ignore[no-untyped-call]
    return loss
