"""`etude export`: a model directory to what other tools load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from etude.gpt.exporting import export_model
from etude.model import model_directory

from .options import say

_Format = StrEnum("_Format", ("hf", "gguf", "onnx"))
_Dtype = StrEnum("_Dtype", ("float32", "float16"))
_Quantized = StrEnum("_Quantized", ("int8", "int4"))


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def export(
        model: Annotated[str, typer.Argument(help="A model directory: gpt2, or for onnx micro too.")],
        destination: Annotated[
            Path, typer.Argument(help="What to make: a directory for hf and onnx, a file for gguf.", metavar="DEST")
        ],
        to: Annotated[
            _Format,
            typer.Option(
                help="hf: transformers and vLLM; gguf: llama.cpp; onnx: onnxruntime (pip install 'etude[export]')."
            ),
        ],
        dtype: Annotated[
            _Dtype | None, typer.Option(help="The weights' precision, for hf and gguf.", show_default="float32")
        ] = None,
        quantize: Annotated[
            _Quantized | None, typer.Option(help="Smaller weights, for gguf: int8 is its Q8_0, int4 its Q4_0.")
        ] = None,
    ) -> None:
        """Export a model to what other tools load; docs/serving.md shows how each of them serves it.

        Example: etude export gpt2 gpt2.gguf --to gguf --quantize int8
        """
        export_model(model_directory(model), destination, to, dtype, quantize)
        files = [destination, *destination.rglob("*")]
        size = sum(path.stat().st_size for path in files if path.is_file())
        say(f"{destination}: {to}, {quantize or dtype or 'float32'}, {size:,} bytes")
