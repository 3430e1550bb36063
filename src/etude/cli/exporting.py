"""`etude export`: a model directory to what other tools load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from etude.engines.quantize import quantize_model
from etude.gpt.exporting import export_model
from etude.model import model_directory

from .options import Quantized, read_precision, say

_Format = StrEnum("_Format", ("etude", "hf", "gguf", "onnx"))
_Dtype = StrEnum("_Dtype", ("float32", "float16"))


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def export(
        model: Annotated[str, typer.Argument(help="A model directory: gpt2, or for onnx micro too.")],
        destination: Annotated[
            Path, typer.Argument(help="What to make: a directory, but for gguf a file.", metavar="DEST")
        ],
        to: Annotated[
            _Format,
            typer.Option(
                help="etude: this package, with --quantize; hf: transformers and vLLM; gguf: llama.cpp; onnx: "
                "onnxruntime (pip install 'etude[export]')."
            ),
        ] = _Format.etude,
        dtype: Annotated[
            _Dtype | None, typer.Option(help="The weights' precision, for hf and gguf.", show_default="float32")
        ] = None,
        quantize: Annotated[
            Quantized | None,
            typer.Option(help="Smaller weights, for etude and for gguf, where int8 is Q8_0 and int4 is Q4_0."),
        ] = None,
    ) -> None:
        """Export a model to what other tools load; docs/serving.md shows how each of them serves it.

        Example: etude export gpt2 gpt2.gguf --to gguf --quantize int8
        """
        precision = read_precision(quantize)
        if to != _Format.etude:
            export_model(model_directory(model), destination, to, dtype, quantize)
        elif precision is None or dtype is not None:
            raise typer.BadParameter(
                "--to etude takes --quantize int8 or int4 and no --dtype; for other tools give --to hf, gguf or onnx"
            )
        else:
            quantize_model(model_directory(model), destination, precision)
        files = [destination, *destination.rglob("*")]
        size = sum(path.stat().st_size for path in files if path.is_file())
        say(f"{destination}: {to}, {quantize or dtype or 'float32'}, {size:,} bytes")
