"""Where and in what precision a run computes, and what share of a GPU's peak it uses."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from etude.errors import EtudeError
from etude.gpt.config import GPTConfig, parameter_shapes

# Dense bfloat16 operations a second by the makers' data sheets, by a word of the GPU's name.
_PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12, "L4": 121e12}


class DeviceError(EtudeError):
    """A device that is not here, or that a step cannot be compiled for."""


@dataclass(frozen=True, slots=True)
class Device:
    """A processor and how it is used. On a GPU matrices are multiplied in bfloat16, weights and sums in float32."""

    name: str = "cpu"
    bfloat16: bool = False
    compile: bool = False
    """Whether the step is compiled by `torch.compile`."""
    fused: bool = False
    """Whether the loss is the one of `engines.tensor_loss`."""

    @property
    def on_gpu(self) -> bool:
        return self.name != "cpu"

    def autocast(self) -> AbstractContextManager[object]:
        """Around a forward pass: the precision."""
        if not self.bfloat16:
            return nullcontext()
        return torch.autocast(self.name.partition(":")[0], torch.bfloat16)

    @property
    def peak(self) -> float | None:
        """Operations a second at most, where the GPU is a known one."""
        if not self.on_gpu:
            return None
        name = torch.cuda.get_device_name(self.name)
        return next((peak for word, peak in _PEAKS.items() if re.search(rf"\b{word}\b", name)), None)


CPU = Device()


def product_type(device: str = "cpu") -> torch.dtype:
    """What matrices are multiplied in where rounding does no harm: bfloat16 where the device has instructions for that.

    A processor without them makes such products of others, 40 times slower than float32 (docs/log.md).
    """
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private, and all that PyTorch tells
    native = device != "cpu" or any(getattr(torch.cpu, name, lambda: False)() for name in names)
    return torch.bfloat16 if native else torch.float32


def choose(name: str | None = None, local_rank: int = 0) -> Device:
    """The device called `cpu` or `cuda`; without a name a GPU where there is one. Raises `DeviceError`.

    Of several GPUs the processes of a machine take one each, in their order.
    """
    if name not in (None, "cpu", "cuda"):
        raise DeviceError(f"no device {name!r}; known: cpu, cuda")
    if name == "cpu" or (name is None and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise DeviceError("PyTorch sees no GPU here; leave --device out to train on the processor")
    torch.set_float32_matmul_precision("high")  # what stays in float32 may use the tensor cores
    return Device(f"cuda:{local_rank}", bfloat16=True, compile=True, fused=True)


def compiler() -> str | None:
    """The C++ compiler that `torch.compile` takes on a processor: $CXX where it is set, else the system's; or None."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


@contextmanager
def compiling() -> Iterator[None]:
    """What `torch.compile` cannot do, which shows at the first step, as one clear line."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        cause = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DeviceError(
            f"the step cannot be compiled ({cause[:200]}); take --set compile=no, on a GPU --device cpu"
        ) from error


def flops_per_token(config: GPTConfig, t: int) -> float:
    """Operations of forward and backward pass for a token in a window of t, as PaLM's appendix B counts them.

    6 for each weight that multiplies, and for attention's two products 12 n_layer n_embd t. (Chowdhery et al. 2022.)
    """
    shapes = parameter_shapes(config)
    looked_up = {"wte", "wte.weight", "wpe", "wpe.weight", "ngrams"} - {config.head}  # nothing is multiplied with these
    weights = sum(math.prod(shape) for name, shape in shapes.items() if len(shape) == 2 and name not in looked_up)
    return 6.0 * weights + 12.0 * config.n_layer * config.n_embd * t
