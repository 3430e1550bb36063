"""Muon for the matrices of the layers: momentum whose singular values are all made about one.

Keller Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the quintic's coefficients are
theirs. A large table of which a step touches few rows has an optimiser that touches no others. Everything else is
trained by PyTorch's fused AdamW (Loshchilov and Hutter 2019).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def adamw(groups: Sequence[tuple[Sequence[nn.Parameter], float]], betas: tuple[float, float]) -> torch.optim.AdamW:
    """PyTorch's fused AdamW for groups of parameters with a weight decay each; whoever steps it sets the rates.

    Its state is made here and not in the first step, so that a checkpoint can fill it.
    """
    adam = torch.optim.AdamW(
        [{"params": list(parameters), "weight_decay": decay} for parameters, decay in groups], betas=betas, fused=True
    )
    for parameters, _ in groups:
        for parameter in parameters:
            adam.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    return adam


def orthogonalize(stack: Tensor, compute: torch.dtype) -> Tensor:
    """Push the singular values of matrices [n, rows, columns] (rows <= columns) towards 1 by Newton-Schulz steps.

    In the type `compute`, in the original bfloat16: the result needs no precision.
    """
    a, b, c = _COEFFICIENTS
    x = (stack / (stack.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(compute)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT  # [n, rows, rows]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    orthogonal: Tensor = x.to(stack.dtype)
    return orthogonal


class Muon:
    """Nesterov momentum, orthogonalised. A matrix [k·m, m] that stacks k maps (as `c_attn` does q, k and v) is k maps.

    Matrices of one shape are orthogonalised in one batch, in the type `compute`: at this size the number of calls is
    what costs.
    """

    def __init__(
        self, matrices: Sequence[nn.Parameter], weight_decay: float, compute: torch.dtype, momentum: float = 0.95
    ) -> None:
        self.matrices, self.weight_decay, self.momentum = list(matrices), weight_decay, momentum
        self.compute = compute
        self.buffers = [torch.zeros_like(matrix) for matrix in self.matrices]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        gradients = [matrix.grad for matrix in self.matrices if matrix.grad is not None]
        if len(gradients) < len(self.matrices):
            raise ValueError("every matrix needs a gradient")
        torch._foreach_lerp_(self.buffers, gradients, 1 - self.momentum)
        updates = torch._foreach_lerp(gradients, self.buffers, self.momentum)
        by_shape: dict[tuple[int, int], list[tuple[int, Tensor]]] = defaultdict(list)
        for index, update in enumerate(updates):
            rows, columns = update.shape
            maps = update.view(3, columns, columns) if rows == 3 * columns else update[None]
            maps = maps.mT if rows > columns and rows != 3 * columns else maps
            by_shape[maps.shape[1], maps.shape[2]].extend((index, each) for each in maps)
        parts: dict[int, list[Tensor]] = defaultdict(list)
        for stack in by_shape.values():
            orthogonal = orthogonalize(torch.stack([each for _, each in stack]), self.compute)
            for (index, _), part in zip(stack, orthogonal, strict=True):
                parts[index].append(part)
        for index, matrix in enumerate(self.matrices):
            rows, columns = matrix.shape
            update = torch.cat(parts[index])  # [rows, columns] or its transpose
            if update.shape != matrix.shape:
                update = update.T
            scale = 1.0 if rows == 3 * columns else max(1.0, rows / columns) ** 0.5
            matrix.mul_(1 - learning_rate * self.weight_decay).add_(update, alpha=-learning_rate * scale)

    def zero_grad(self) -> None:
        for matrix in self.matrices:
            matrix.grad = None


class Rows:
    """RMSProp for the rows of a table [n, d] that a step has touched: each row over the root of its mean square so far.

    The mean forgets at the pace of the row's own steps (Adam's correction included), not of all steps: a row that is
    seen once in a thousand steps has not forgotten. Row 0 stays as it is.
    """

    def __init__(self, table: Tensor, beta: float = 0.95) -> None:
        self.table, self.beta = table, beta
        self.mean_squares = torch.zeros(len(table), 1, device=table.device)
        self.steps = torch.zeros(len(table), 1, device=table.device)

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """Each of the rows [n, lengths] had a part in a sum whose gradient is [n, d]."""
        touched, places = torch.unique(rows, return_inverse=True)  # [u], [n, lengths]
        total = torch.zeros(len(touched), gradient.shape[1], device=gradient.device)
        for column in places.unbind(1):
            total.index_add_(0, column, gradient)  # [u, d]
        steps = self.steps[touched] + 1
        mean_squares = torch.lerp(self.mean_squares[touched], total.square().mean(1, keepdim=True), 1 - self.beta)
        self.steps[touched], self.mean_squares[touched] = steps, mean_squares
        size = (mean_squares / (1 - self.beta**steps)).sqrt() + 1e-12  # [u, 1]
        total[touched == 0] = 0
        self.table.index_add_(0, touched, total / size, alpha=-learning_rate)
