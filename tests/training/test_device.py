"""Where a run computes, and how many operations a token takes."""

from __future__ import annotations

import pytest

from etude.gpt.config import GPTConfig

torch = pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")

from etude.training.device import CPU, Device, DeviceError, choose, flops_per_token, product_type  # noqa: E402


def test_the_device_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("cpu") == CPU and not CPU.on_gpu and CPU.peak is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose() == CPU
    with pytest.raises(DeviceError, match="no GPU here; leave --device out"):
        choose("cuda")
    with pytest.raises(DeviceError, match="no device 'tpu'; known: cpu, cuda"):
        choose("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    precision = torch.get_float32_matmul_precision()
    try:
        assert choose(None, 3) == choose("cuda", 3) == Device("cuda:3", bfloat16=True, compile=True, fused=True)
    finally:
        torch.set_float32_matmul_precision(precision)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: "NVIDIA H200")
    assert Device("cuda:3").peak == 989e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: "Something new")
    assert Device("cuda:3").peak is None


def test_products_are_in_bfloat16_where_there_are_instructions_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert product_type("cuda:0") == torch.bfloat16
    for avx512, amx, wanted in ((0, 0, torch.float32), (1, 0, torch.bfloat16), (0, 1, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=avx512: bool(has), raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=amx: bool(has), raising=False)
        assert product_type() == wanted
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")  # of another PyTorch
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert product_type() == torch.float32


def test_operations_of_gpt2() -> None:
    """85 M numbers of the layers and 38.6 M of the head, 6 operations each, and attention over 1,024 tokens."""
    config = GPTConfig("gpt2", 50257, 1024, 12, 12, 768)
    weights = 12 * 12 * 768**2 + 50257 * 768
    assert flops_per_token(config, 1024) == 6 * weights + 12 * 12 * 768 * 1024
    assert flops_per_token(config, 1024) == pytest.approx(0.854e9, rel=1e-3)
    # The head of `modern` is its embeddings; its rows of n-grams, and all of the table of pairs, are looked up.
    modern = GPTConfig("modern", 322, 128, 4, 4, 128, ngram_rows=1 << 14)
    assert flops_per_token(modern, 128) == 6 * (12 * 4 * 128**2 + 322 * 128) + 12 * 4 * 128 * 128
    pairs = GPTConfig("lesson", 66, 8, 1, 1, 66, rung="bigram")
    assert flops_per_token(pairs, 8) == 12 * 66 * 8


def test_autocast_is_bfloat16_or_nothing() -> None:
    for device, dtype in ((CPU, torch.float32), (Device(bfloat16=True), torch.bfloat16)):
        with device.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
