"""GPT as an ONNX graph, which onnxruntime and others run: new tokens and a cache in, logits and a longer cache out.

Inputs and outputs have the names of Hugging Face's exports. A row of work is a token: x is [b·t, d] throughout, and is
[b, h, t, k] only within attention; b is the batch, t the number of new tokens, n all tokens so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .config import GPTConfig
from .directory import Weights

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 17, 8  # of 2022, the first with LayerNormalization
_PAGE = 4096  # what a weight begins at a multiple of, so that it can be mapped
_MICRO_EPSILON = 1e-5


def onnx_model(config: GPTConfig, weights: Weights, data: BinaryIO, location: str) -> ModelProto:
    """The graph of a `gpt2` or `micro` model, float32; its weights go to `data`, a file beside it called `location`.

    Inputs: input_ids [b, t], and for each layer i past_key_values.i.key and .value [b, h, past, k]; past may be 0.
    Outputs: logits [b, t, V], and present.i.key and .value [b, h, past + t, k], which are the next step's past.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    for name in sorted(weights):
        graph.weight(name, weights[name], data, location)
    cache: list[Any] = ["batch", config.n_head, "past", config.head_size]
    longer: list[Any] = [*cache[:2], "total", cache[3]]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "new"])]
    logits: list[Any] = ["batch", "new", config.vocab_size]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits)]
    for layer in range(config.n_layer):
        for part in ("key", "value"):
            past, present = f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"
            inputs.append(helper.make_tensor_value_info(past, TensorProto.FLOAT, cache))
            outputs.append(helper.make_tensor_value_info(present, TensorProto.FLOAT, longer))
    _gpt(graph, config)
    return helper.make_model(
        helper.make_graph(graph.nodes, config.architecture, inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="etude",
    )


class _Graph:
    """Nodes in the order in which they are computed, and constants."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def weight(self, name: str, array: NDArray[Any], data: BinaryIO, location: str) -> None:
        """A constant whose numbers are in the file beside the graph."""
        from onnx import StringStringEntryProto, TensorProto

        data.write(bytes(-data.tell() % _PAGE))
        place = {"location": location, "offset": data.tell(), "length": 4 * array.size}
        data.write(np.ascontiguousarray(array, "<f4").data)
        external = [StringStringEntryProto(key=key, value=str(value)) for key, value in place.items()]
        self.constants.append(
            TensorProto(
                name=name,
                dims=array.shape,
                data_type=TensorProto.FLOAT,
                data_location=TensorProto.EXTERNAL,
                external_data=external,
            )
        )

    def constant(self, value: Any, dtype: str = "int64") -> str:
        """A small constant of its own."""
        from onnx import numpy_helper

        name = f"constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """One operation; the name of what it gives."""
        from onnx import helper

        output = output or f"{op}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output


def _gpt(graph: _Graph, config: GPTConfig) -> None:
    """The same steps as `ArrayEngine._gpt2` and `ArrayEngine._micro`."""
    add, number, gpt2 = graph.add, graph.constant, config.architecture == "gpt2"
    # A vector of one length stays a vector; `Range` wants the length itself.
    batch, new = (add("Shape", "input_ids", start=axis, end=axis + 1) for axis in (0, 1))  # [1] each
    past = add("Shape", "past_key_values.0.key", start=2, end=3)  # [1]
    zero, one = number(0), number(1)
    total = add("Squeeze", add("Add", past, new))
    columns = add("Range", zero, total, one)  # [n]
    positions = add("Range", add("Squeeze", past), total, one)  # [t]
    visible = add("LessOrEqual", columns, add("Unsqueeze", positions, number([1])))  # [n], [t, 1] -> [t, n]
    lowest = float(np.finfo(np.float32).min)
    bias = add("Where", visible, number(0, "float32"), number(lowest, "float32"))  # [t, n]
    d, heads = number([-1, config.n_embd]), number([3, config.n_head, config.head_size])
    head_shape = add("Concat", batch, new, heads, axis=0)  # b, t, 3, h, k
    scale = number(config.head_size**-0.5, "float32")

    wte, wpe = ("wte.weight", "wpe.weight") if gpt2 else ("wte", "wpe")
    x = add("Add", add("Gather", wte, "input_ids"), add("Gather", wpe, positions))  # [b, t, d]
    x = add("Reshape", x, d)  # [b·t, d]
    x = x if gpt2 else _norm(graph, config, "", x)
    for layer in range(config.n_layer):
        name = f"h.{layer}"
        qkv = _linear(graph, config, f"{name}.attn.c_attn", _norm(graph, config, f"{name}.ln_1", x))  # [b·t, 3d]
        qkv = add("Transpose", add("Reshape", qkv, head_shape), perm=[2, 0, 3, 1, 4])  # [3, b, h, t, k]
        q, k, v = (add("Gather", qkv, number(i), axis=0) for i in range(3))  # [b, h, t, k] each
        k, v = (
            add("Concat", f"past_key_values.{layer}.{part}", each, axis=2, output=f"present.{layer}.{part}")
            for part, each in (("key", k), ("value", v))
        )  # [b, h, n, k] each
        scores = add("MatMul", add("Mul", q, scale), add("Transpose", k, perm=[0, 1, 3, 2]))  # [b, h, t, n]
        attention = add("Softmax", add("Add", scores, bias), axis=-1)
        y = add("Transpose", add("MatMul", attention, v), perm=[0, 2, 1, 3])  # [b, t, h, k]
        y = _linear(graph, config, f"{name}.attn.c_proj", add("Reshape", y, d))  # [b·t, d]
        x = add("Add", x, y)
        hidden = _linear(graph, config, f"{name}.mlp.c_fc", _norm(graph, config, f"{name}.ln_2", x))  # [b·t, 4d]
        hidden = _gelu(graph, hidden) if gpt2 else add("Relu", hidden)
        x = add("Add", x, _linear(graph, config, f"{name}.mlp.c_proj", hidden))  # [b·t, d]
    x = _norm(graph, config, "ln_f", x) if gpt2 else x
    shape = add("Concat", batch, new, number([config.vocab_size]), axis=0)
    add("Reshape", add("Gemm", x, config.head, transB=1), shape, output="logits")  # [b·t, V] -> [b, t, V]


def _norm(graph: _Graph, config: GPTConfig, name: str, x: str) -> str:
    """LayerNorm of `gpt2`, or the RMSNorm without weights of `micro`."""
    add = graph.add
    if config.architecture == "gpt2":
        epsilon = config.layer_norm_epsilon
        return add("LayerNormalization", x, f"{name}.weight", f"{name}.bias", axis=-1, epsilon=epsilon)
    square = add("ReduceMean", add("Mul", x, x), axes=[-1])  # [b·t, 1]
    return add("Div", x, add("Sqrt", add("Add", square, graph.constant(_MICRO_EPSILON, "float32"))))


def _linear(graph: _Graph, config: GPTConfig, name: str, x: str) -> str:
    """x through a matrix: [in, out] with a bias in `gpt2`, [out, in] without one in `micro`."""
    if config.architecture == "gpt2":
        return graph.add("Gemm", x, f"{name}.weight", f"{name}.bias")
    return graph.add("Gemm", x, name, transB=1)


def _gelu(graph: _Graph, x: str) -> str:
    """x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), in operations that every runtime has."""
    add = graph.add

    def times(a: str, factor: float) -> str:
        return add("Mul", a, graph.constant(factor, "float32"))

    cube = add("Mul", add("Mul", x, x), x)
    tanh = add("Tanh", times(add("Add", x, times(cube, 0.044715)), float(np.sqrt(2 / np.pi))))
    return times(add("Mul", x, add("Add", tanh, graph.constant(1, "float32"))), 0.5)
