"""Checks an installed NATTEN on a GPU against attention with a mask, computed with torch.

Run it with the Python that the wheel is installed in. Forward and backward, in one, two and three
dimensions, with dilation and causal masks, sizes that fill no tile evenly, by all of its kernels
that this GPU runs: for every GPU, for Hopper, and its own reference.

Tolerances: the largest error may be twice the largest error of attention by torch's operations in
the same type, both against float64 (of gradients three times, since the kernels compute the
probabilities again), and 8 roundings of the largest value, for luck of torch's.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import natten
import torch
from natten.backends import reference

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import Case, expect_as_good, forward_and_backward, run

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
BATCH, HEADS = 2, 3
NAMES = ("out", "dq", "dk", "dv")


@dataclass(frozen=True)
class Neighborhood:
    """Of each axis: its length, how many places a query sees, how far apart, and only before it."""

    sizes: tuple[int, ...]
    windows: tuple[int, ...]
    dilations: tuple[int, ...]
    causal: tuple[bool, ...]

    @property
    def name(self) -> str:
        shape = "x".join(map(str, self.sizes))
        dilated = " dilated" if max(self.dilations) > 1 else ""
        return f"{shape}{dilated}{' causal' if any(self.causal) else ''}"


SEEN = (
    Neighborhood((151,), (13,), (1,), (False,)),
    Neighborhood((151,), (13,), (3,), (True,)),
    Neighborhood((19, 37), (7, 9), (1, 1), (False, False)),
    Neighborhood((19, 37), (5, 7), (2, 3), (True, False)),
    Neighborhood((7, 11, 13), (3, 5, 7), (1, 1, 1), (False, False, False)),
    Neighborhood((7, 11, 13), (3, 5, 3), (1, 2, 1), (False, False, True)),
)


def seen_along(size: int, window: int, dilation: int, causal: bool) -> torch.Tensor:
    """Which places (columns) each query (row) of one axis sees.

    Places `dilation` apart are neighbors. Near an end a window is shifted, and stays whole; a
    causal one ends at the query, and is cut.
    """
    found = torch.zeros(size, size, dtype=torch.bool)
    for query in range(size):
        first, place = query % dilation, query // dilation
        count = len(range(first, size, dilation))
        if causal:
            start, end = max(place - window + 1, 0), place + 1
        else:
            start = min(max(place - window // 2, 0), count - window)
            end = start + window
        found[query, torch.arange(start, end) * dilation + first] = True
    return found


def mask_of(seen: Neighborhood) -> torch.Tensor:
    """Of all queries and places, in the order of memory."""
    axes = zip(seen.sizes, seen.windows, seen.dilations, seen.causal, strict=True)
    found = torch.ones(1, 1, dtype=torch.bool)
    for size, window, dilation, causal in axes:
        found = torch.kron(found, seen_along(size, window, dilation, causal))
    return found.cuda()


def attention(q, k, v, *, mask: torch.Tensor) -> torch.Tensor:
    """Of (batch, …, heads, dim): the mask is of all that lies between."""
    shape = q.shape
    q, k, v = (one.flatten(1, -3).transpose(1, 2) for one in (q, k, v))
    scores = q @ k.mT * q.shape[-1] ** -0.5
    out = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v
    return out.transpose(1, 2).reshape(shape)


def expect_same(function, mask: torch.Tensor, dtype, sizes: Sequence[int], dim: int) -> None:
    inputs = [torch.randn(BATCH, *sizes, HEADS, dim, device="cuda").to(dtype) for _ in range(3)]
    gradient = torch.randn(BATCH, *sizes, HEADS, dim, device="cuda").to(dtype)
    masked = functools.partial(attention, mask=mask)
    ours = forward_and_backward(function, inputs, gradient)
    plain = forward_and_backward(masked, inputs, gradient)
    exact = forward_and_backward(masked, [one.double() for one in inputs], gradient)
    for name, one, other, right in zip(NAMES, ours, plain, exact, strict=True):
        factor = 2 if name == "out" else 3
        expect_as_good(name, one, other, right, factor=factor, roundings=8)


def neighborhood(backend: str, seen: Neighborhood, dtype: torch.dtype, dim: int) -> None:
    axes = f"na{len(seen.sizes)}d"
    if backend == "reference":
        function = getattr(reference, f"{axes}_reference")
    else:
        function = functools.partial(getattr(natten, axes), backend=backend)
    ours = functools.partial(
        function, kernel_size=seen.windows, dilation=seen.dilations, is_causal=seen.causal
    )
    expect_same(ours, mask_of(seen), dtype, seen.sizes, dim)


def full(backend: str, causal: bool, dtype: torch.dtype, dim: int) -> None:
    length = 251
    mask = torch.ones(length, length, dtype=torch.bool, device="cuda")
    mask = mask.tril() if causal else mask
    ours = functools.partial(natten.attention, is_causal=causal, backend=backend)
    expect_same(ours, mask, dtype, (length,), dim)


def cases() -> dict[str, Case]:
    hopper = torch.cuda.get_device_capability() == (9, 0)
    found: dict[str, Case] = {}

    def add(backend: str, short: str, dtype: torch.dtype, dims: Sequence[int]) -> None:
        for dim in dims:
            for seen in SEEN:
                name = f"{backend} fwd+bwd {short} {seen.name} dim {dim}"
                found[name] = functools.partial(neighborhood, backend, seen, dtype, dim)

    for short, dtype in TYPES.items():
        add("cutlass-fna", short, dtype, (32, 40, 128))
        backends = {"cutlass-fmha": (32, 72, 128)}
        if hopper:
            add("hopper-fna", short, dtype, (32, 64, 128))
            backends["hopper-fmha"] = (32, 64, 128)
        for backend, dims in backends.items():
            for dim in dims:
                for causal in (False, True) if backend == "cutlass-fmha" else (False,):
                    name = f"{backend} fwd+bwd {short} {'causal ' if causal else ''}dim {dim}"
                    found[name] = functools.partial(full, backend, causal, dtype, dim)
    for short, dtype in {"fp32": torch.float32, **TYPES}.items():
        add("reference", short, dtype, (24,))
    return found


if __name__ == "__main__":
    sys.exit(run(cases))
