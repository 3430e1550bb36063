"""The loss without logits: the numbers and gradients of the plain one, whatever is rounded up or cut."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the tensor engine needs PyTorch (the train extra)")

from etude.engines import tensor_loss  # noqa: E402 - only where PyTorch is installed
from etude.engines.tensor_loss import mean_nats  # noqa: E402


@pytest.mark.parametrize("rows", [7, 20, 64])
@pytest.mark.parametrize("vocab_size", [5, 128, 131])
def test_it_is_cross_entropy(monkeypatch: pytest.MonkeyPatch, rows: int, vocab_size: int) -> None:
    monkeypatch.setattr(tensor_loss, "ROWS", rows)
    torch.manual_seed(rows)
    found = []
    x, head = torch.randn(40, 6), torch.randn(vocab_size, 6)
    targets = torch.randint(vocab_size, (40,))
    for loss_of in (
        lambda x, head: mean_nats(x, head, targets),
        lambda x, head: torch.nn.functional.cross_entropy(x @ head.T, targets),
    ):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, head)]
        loss = 3 * loss_of(*leaves)
        loss.backward()
        found.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape and (ours - theirs).abs().max() < 1e-5


def test_in_autocast_products_are_bfloat16_and_sums_are_not() -> None:
    torch.manual_seed(0)
    x, head = torch.randn(40, 64, requires_grad=True), torch.randn(100, 64, requires_grad=True)
    targets = torch.randint(100, (40,))
    with torch.autocast("cpu", torch.bfloat16):
        loss = mean_nats(x, head, targets)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    exact = mean_nats(x, head, targets)
    assert loss.dtype == x.grad.dtype == head.grad.dtype == torch.float32
    assert 0 < abs(loss.item() - exact.item()) < 0.05
