"""Muon's momentum and the optimiser of a table's rows, by hand."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")

from etude.training.optimizers import Muon, Rows, orthogonalize  # noqa: E402 - only where PyTorch is installed


def test_muon_looks_ahead_along_the_mean_of_its_gradients() -> None:
    torch.manual_seed(0)
    matrix, gradients = torch.nn.Parameter(torch.randn(8, 8)), torch.randn(2, 8, 8)
    wanted, mean = matrix.detach().clone(), torch.zeros(8, 8)
    muon = Muon([matrix], weight_decay=0.0, compute=torch.float32, momentum=0.95)
    for gradient in gradients:
        matrix.grad = gradient.clone()
        muon.step(0.5)
        mean = 0.95 * mean + 0.05 * gradient
        ahead = 0.95 * mean + 0.05 * gradient  # Nesterov: as if the same gradient came once more
        wanted -= 0.5 * orthogonalize(ahead[None], torch.float32)[0]
        assert torch.allclose(matrix, wanted, atol=1e-5)


def test_rows_move_by_the_rate_against_their_gradient_over_its_size() -> None:
    table = torch.arange(20.0).view(5, 4).clone()
    before, rows = table.clone(), Rows(table)
    gradient = torch.tensor([[1.0, -2.0, 3.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
    rows.step(torch.tensor([[1, 3], [3, 0]]), gradient, 0.1)
    both = gradient.sum(dim=0)
    wanted = before.clone()
    wanted[1] -= 0.1 * gradient[0] / gradient[0].square().mean().sqrt()
    wanted[3] -= 0.1 * both / both.square().mean().sqrt()
    assert np.allclose(table, wanted, atol=1e-6)  # and rows 0, 2 and 4 are as they were


def test_the_mean_square_forgets_at_the_pace_of_the_rows_own_steps() -> None:
    table = torch.zeros(3, 2)
    rows = Rows(table, beta=0.9)
    for step in range(50):
        rows.step(torch.tensor([[2]]), torch.tensor([[1.0, 1.0]]), 0.0)
        if step == 0:
            rows.step(torch.tensor([[1]]), torch.tensor([[4.0, 4.0]]), 0.0)
    assert rows.steps.flatten().tolist() == [0, 1, 50]
    rows.step(torch.tensor([[1]]), torch.tensor([[1.0, 1.0]]), 1.0)
    mean_square = (0.9 * 0.1 * 16 + 0.1 * 1) / (1 - 0.9**2)
    assert table[1, 0].item() == pytest.approx(-1 / mean_square**0.5, rel=1e-4)
