"""Training GPT-2 124M on a GPU, 2^19 tokens a step, beside a plain PyTorch loop of the same model on the same tokens.

Both compute in bfloat16 under `torch.compile` with fused attention and fused AdamW and read no loss on the way; each is
a process of its own, so that neither finds the other's memory. The plain loop is nanoGPT's way: logits of a whole
micro-batch, which are therefore few, and a vocabulary rounded up to a multiple of 64.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from etude.engines.engine import check_engine
from etude.errors import EtudeError
from etude.gpt.config import GPTConfig
from etude.training.recipes import TextRecipe, recipe

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = GPTConfig("gpt2", 50257, 1024, 12, 12, 768, bos_token_id=50256, eos_token_id=50256)
RECIPE = replace(cast("TextRecipe", recipe("gpt2-124m")), micro_batch_size=64)
PLAIN_MICRO_BATCH = 16
SUBJECTS = ("etude", "plain PyTorch loop")
WARM_UP, STEPS = 3, 10

Row = dict[str, Any]
Report = Callable[[str], None]


def bench(report: Report = lambda remark: None) -> list[Row]:
    """The rows of `etude bench train --gpu`; `report` hears what is being measured. Raises `EtudeError`."""
    check_engine("tensor")
    import torch

    from etude.training.device import choose, flops_per_token

    if not torch.cuda.is_available():
        raise EtudeError("bench train measures on a GPU, and PyTorch sees none here")
    peak, rows, rates = choose("cuda").peak, list[Row](), dict[str, float]()
    for subject in SUBJECTS:
        report(f"{subject}: compiling, then {STEPS} steps")
        # -P: a file of the current folder must not be taken for a module of Python's.
        command = [sys.executable, "-P", "-m", "etude.bench.train", subject]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EtudeError(f"{subject} failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}")
        found = json.loads(done.stdout.splitlines()[-1])
        rates[subject] = found["tokens_per_second"]
        rows.append({"subject": subject, "metric": "training", "value": rates[subject], "unit": "tokens/s"})
        if peak is not None:
            share = 100 * rates[subject] * flops_per_token(CONFIG, CONFIG.block_size) / peak
            rows.append({"subject": subject, "metric": "share of the GPU's peak", "value": share, "unit": "%"})
        rows.append({"subject": subject, "metric": "memory", "value": found["memory"] / 2**30, "unit": "GiB"})
        rows.append({"subject": subject, "metric": "loss of the last step", "value": found["loss"], "unit": "nats"})
    ratio = rates["etude"] / rates["plain PyTorch loop"]
    return [*rows, {"subject": "etude", "metric": "to the plain loop", "value": ratio, "unit": "times"}]


def measure(
    subject: str, config: GPTConfig, settings: TextRecipe, device: str | None, steps: int = STEPS
) -> dict[str, float]:
    """Train on random tokens in this process: tokens a second, bytes of memory, and the loss of the last step."""
    import torch

    from etude.engines.tensor_gpt2 import initial_weights
    from etude.training.device import choose
    from etude.training.learner import Learner

    place, rng = choose(device), np.random.default_rng(0)
    batches = [
        rng.integers(config.vocab_size, size=(settings.batch_size, settings.block_size + 1), dtype=np.int32)
        for _ in range(2)
    ]
    if subject == "etude":
        learner = Learner(config, settings, device=place)
        learner.adopt(initial_weights(config, 0))

        def step(number: int) -> torch.Tensor:
            return learner.step(batches[number % 2], settings, number)

    else:
        plain = PlainLoop(config, settings, place.name, initial_weights(config, 0))

        def step(number: int) -> torch.Tensor:
            return plain.step(batches[number % 2], number)

    began, loss = 0.0, torch.zeros(())
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            loss.item()  # until everything before is done
            began = time.perf_counter()
        loss = step(number)
    last = loss.item()
    seconds = time.perf_counter() - began
    tokens = steps * settings.batch_size * settings.block_size
    memory = torch.cuda.max_memory_allocated() if place.on_gpu else 0
    return {"tokens_per_second": tokens / seconds, "memory": float(memory), "loss": last}


class PlainLoop:
    """What one writes who knows PyTorch: its own layers, autocast, `torch.compile`, fused AdamW."""

    def __init__(self, config: GPTConfig, settings: TextRecipe, device: str, weights: dict[str, Any]) -> None:
        import torch
        from torch import nn
        from torch.nn import functional as F  # noqa: N812

        d, heads = config.n_embd, config.n_head
        vocab_size = -(-config.vocab_size // 64) * 64

        class Layer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
                self.c_attn, self.attn_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
                self.c_fc, self.mlp_proj = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

            def forward(self, x: Tensor) -> Tensor:
                b, t, _ = x.shape
                q, k, v = self.c_attn(self.ln_1(x)).view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4)  # [b, h, t, k]
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # [b, h, t, k]
                x = x + self.attn_proj(y.transpose(1, 2).reshape(b, t, d))  # [b, t, d]
                out: Tensor = x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))
                return out

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.wte, self.wpe = nn.Embedding(vocab_size, d), nn.Embedding(config.block_size, d)
                self.h = nn.ModuleList(Layer() for _ in range(config.n_layer))
                self.ln_f = nn.LayerNorm(d)

            def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
                x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))  # [b, t, d]
                for layer in self.h:
                    x = layer(x)  # [b, t, d]
                logits = F.linear(self.ln_f(x), self.wte.weight)  # [b, t, V]
                return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

        model = Model()
        with torch.no_grad():  # ours, transposed: the two may be compared step by step
            for name, parameter in model.named_parameters():
                ours = name.replace("attn_proj", "attn.c_proj").replace("c_attn", "attn.c_attn")
                ours = ours.replace("mlp_proj", "mlp.c_proj").replace("c_fc", "mlp.c_fc")
                array = torch.tensor(weights[ours])
                array = array.T if array.ndim == 2 and "wte" not in name and "wpe" not in name else array
                parameter.zero_()[: len(array)].copy_(array)
        self.model, self.device, self.settings = model.to(device), device, settings
        self.loss = torch.compile(self.model) if device != "cpu" else self.model
        groups = [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ]
        fused = device != "cpu"  # as nanoGPT has it
        self.adam = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=fused)

    def step(self, rows: NDArray[Any], number: int) -> Tensor:
        """One step; the loss before it, on the device."""
        import torch

        from etude.training.learner import schedule

        for group in self.adam.param_groups:
            group["lr"] = self.settings.learning_rate * schedule(self.settings, number)
        size, total = self.settings.micro_batch_size, torch.zeros((), device=self.device)
        for at in range(0, len(rows), size):
            part = torch.from_numpy(rows[at : at + size].astype(np.int64))
            part = part.pin_memory().to(self.device, non_blocking=True) if self.device != "cpu" else part
            with torch.autocast("cuda", torch.bfloat16, enabled=self.device != "cpu"):
                loss = self.loss(part[:, :-1], part[:, 1:]) * size / len(rows)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.adam.step()
        self.adam.zero_grad()
        return total


def _main(subject: str) -> None:
    settings = RECIPE if subject == "etude" else replace(RECIPE, micro_batch_size=PLAIN_MICRO_BATCH)
    print(json.dumps(measure(subject, CONFIG, settings, "cuda")))


if __name__ == "__main__":
    _main(*sys.argv[1:])
