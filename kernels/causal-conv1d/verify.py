"""Checks an installed causal_conv1d on a GPU against torch's own convolution in float64.

Run it with the Python that the wheel is installed in. Forward and backward in float32, float16 and
bfloat16, all widths, both layouts, with and without bias and activation, lengths that fill no
block evenly, sequences in one row, states, and the update of one step.

Tolerances: the largest error may be twice the largest error that torch's convolution makes in the
same type, both against float64, and 16 roundings of the largest value: the kernels compute in
float32 as cuDNN does, but add up thousands of products for a gradient in another order.

No length leaves 1 to 7 places for the last block (1024 places, of float32 512): with activation and
channels first, the project's own backward pass is wrong there in 1.5.2, however it is built
(csrc/causal_conv1d_bwd.cu compares places of this block with those before it).
"""

from __future__ import annotations

import functools
import itertools
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from causal_conv1d import causal_conv1d_fn, causal_conv1d_update

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import Case, expect_as_good, expect_equal, forward_and_backward, run

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WIDTHS = (2, 3, 4)
BATCH, CHANNELS = 2, 72
LENGTHS = (1, 8, 151, 1138, 4111)
NAMES = ("out", "dx", "dweight", "dbias")


def convolution(x, weight, bias=None, *, silu: bool) -> torch.Tensor:
    """The same in torch's operations: each output sees its own place and those before."""
    width = weight.shape[1]
    padded = F.pad(x, (width - 1, 0))
    out = F.conv1d(padded, weight[:, None], bias, groups=weight.shape[0])
    return F.silu(out) if silu else out


def normal(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, device="cuda").to(dtype)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """The same values, those of one place beside each other in memory."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def expect_same(function, reference, inputs: list[torch.Tensor], what: str) -> None:
    with torch.no_grad():
        gradient = torch.randn_like(function(*inputs))
    ours = forward_and_backward(function, inputs, gradient)
    plain = forward_and_backward(reference, inputs, gradient)
    exact = forward_and_backward(reference, [one.double() for one in inputs], gradient)
    for name, one, other, right in zip(NAMES, ours, plain, exact, strict=False):
        expect_as_good(f"{name}, {what}", one, other, right, factor=2, roundings=16)


def whole(dtype: torch.dtype, width: int, last: bool) -> None:
    """causal_conv1d_fn on every length, with and without bias and activation."""
    for length, biased, silu in itertools.product(LENGTHS, (False, True), (False, True)):
        x = normal(BATCH, CHANNELS, length, dtype=dtype)
        x = channels_last(x) if last else x
        inputs = [x, normal(CHANNELS, width, dtype=dtype)]
        inputs += [normal(CHANNELS, dtype=dtype)] if biased else []

        def function(x, weight, bias=None, silu=silu) -> torch.Tensor:
            return causal_conv1d_fn(x, weight, bias, activation="silu" if silu else None)

        reference = functools.partial(convolution, silu=silu)
        expect_same(function, reference, inputs, f"length {length}, bias {biased}, silu {silu}")


def sequences(dtype: torch.dtype, width: int) -> None:
    """Several sequences in one row: none sees the one before."""
    lengths = [1, 2, 63, 130, 257]
    x = channels_last(normal(BATCH, CHANNELS, sum(lengths), dtype=dtype))
    inputs = [x, normal(CHANNELS, width, dtype=dtype), normal(CHANNELS, dtype=dtype)]
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    index = numbers.to(torch.int32).cuda().expand(BATCH, -1).contiguous()

    def function(x, weight, bias) -> torch.Tensor:
        return causal_conv1d_fn(x, weight, bias, seq_idx=index, activation="silu")

    def reference(x, weight, bias) -> torch.Tensor:
        parts = x.split(lengths, dim=2)
        return torch.cat([convolution(part, weight, bias, silu=True) for part in parts], dim=2)

    expect_same(function, reference, inputs, f"{len(lengths)} sequences")


def states(dtype: torch.dtype, width: int) -> None:
    """A row in two pieces, the second from the first one's state, is the whole row."""
    length, cut = 391, 200
    x = channels_last(normal(BATCH, CHANNELS, length, dtype=dtype))
    weight = normal(CHANNELS, width, dtype=dtype)
    first = channels_last(x[..., :cut])
    out, state = causal_conv1d_fn(first, weight, return_final_states=True)
    expect_equal("the state", state, x[..., cut - width + 1 : cut])
    rest = causal_conv1d_fn(channels_last(x[..., cut:]), weight, initial_states=state)
    ours = torch.cat([out, rest], dim=2)
    plain = convolution(x, weight, silu=False)
    exact = convolution(x.double(), weight.double(), silu=False)
    expect_as_good("out", ours, plain, exact, factor=2, roundings=16)


def update(dtype: torch.dtype, width: int) -> None:
    """causal_conv1d_update, step by step, is the whole row; the state holds the last places."""
    steps, held = 11, width + 2
    x = normal(BATCH, CHANNELS, steps, dtype=dtype)
    weight, bias = normal(CHANNELS, width, dtype=dtype), normal(CHANNELS, dtype=dtype)
    state = torch.zeros(BATCH, CHANNELS, held, device="cuda", dtype=dtype)
    outs = [
        causal_conv1d_update(x[..., step].contiguous(), state, weight, bias, "silu")
        for step in range(steps)
    ]
    expect_equal("the state", state, x[..., -held:])
    plain = convolution(x, weight, bias, silu=True)
    exact = convolution(x.double(), weight.double(), bias.double(), silu=True)
    ours = torch.stack(outs, dim=2)
    expect_as_good("out", ours, plain, exact, factor=2, roundings=16)


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for (short, dtype), width in itertools.product(TYPES.items(), WIDTHS):
        what = f"{short} width {width}"
        for last in (False, True):
            layout = "channels last" if last else "channels first"
            found[f"fwd+bwd {what} {layout}"] = functools.partial(whole, dtype, width, last)
        found[f"sequences fwd+bwd {what}"] = functools.partial(sequences, dtype, width)
        found[f"states {what}"] = functools.partial(states, dtype, width)
        found[f"update {what}"] = functools.partial(update, dtype, width)
    return found


if __name__ == "__main__":
    sys.exit(run(cases))
