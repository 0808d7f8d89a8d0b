"""Checks an installed mamba_ssm's selective scans on a GPU, against the recurrence in float64.

Run it with the Python that the wheel is installed in. Forward and backward in float32, float16 and
bfloat16, with real states, B and C that vary along the sequence or don't, in groups, with and
without D, gate and bias; lengths that fill no block evenly and ones of several chunks.

Tolerances: the scan computes in float32 with nvcc's fast approximations (`--use_fast_math`), of
about 2**-21 each, and rounds once to its type. A state is as long as it lives a sum of products,
which differ in their order: 2**-10 of the largest value, where 16-bit results may be off by four
roundings more, since gradients with respect to B and C are added up over channels in any order.
What cancels to nothing (the gradient of A, at length 1) keeps a rounding of its terms, of about 1.
"""

from __future__ import annotations

import functools
import itertools
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

# isort: split
import selective_scan_cuda  # after torch, whose libraries it needs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import ROUNDING, Case, run

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BATCH, CHANNELS, GROUPS = 2, 6, 2
LENGTHS = (1, 63, 151, 517, 2311)
LEAST = 2**-10
CANCELLED = 2**-20
Inputs = dict[str, torch.Tensor]


def inputs(dtype: torch.dtype, states: int, length: int, *, varies: bool) -> Inputs:
    """varies: B and C differ from place to place."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda")

    found = {
        "u": normal(BATCH, CHANNELS, length).to(dtype),
        "delta": (0.5 * torch.rand(BATCH, CHANNELS, length, device="cuda")).to(dtype),
        "A": -0.5 * torch.rand(CHANNELS, states, device="cuda") - 0.05,
    }
    for name in ("B", "C"):
        if varies:
            found[name] = normal(BATCH, GROUPS, states, length).to(dtype)
        else:
            found[name] = normal(CHANNELS, states)
    return found


def extras(dtype: torch.dtype, length: int) -> Inputs:
    return {
        "D": torch.randn(CHANNELS, device="cuda"),
        "z": torch.randn(BATCH, CHANNELS, length, device="cuda").to(dtype),
        "bias": 0.5 * torch.rand(CHANNELS, device="cuda"),
    }


def along(values: torch.Tensor) -> torch.Tensor:
    """B or C as (batch, channels, states, length)."""
    if values.dim() == 2:
        return values[None, :, :, None]
    return values.repeat_interleave(CHANNELS // GROUPS, dim=1)


def recurrence(u, delta, A, B, C, D=None, z=None, bias=None, *, softplus: bool) -> torch.Tensor:
    step = delta if bias is None else delta + bias[:, None]
    step = F.softplus(step) if softplus else step
    fades = torch.exp(step[:, :, None] * A[None, :, :, None])
    enters = (step * u)[:, :, None] * along(B)
    state = torch.zeros_like(fades[..., 0])
    states = []
    for fade, enter in zip(fades.unbind(-1), enters.unbind(-1), strict=True):
        state = fade * state + enter
        states.append(state)
    result = (torch.stack(states, dim=3) * along(C)).sum(2)
    result = result if D is None else result + D[:, None] * u
    return result if z is None else result * F.silu(z)


def expect_close(what: str, ours: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> None:
    largest = exact.abs().max().item()
    allowed = (LEAST + (4 * ROUNDING[dtype] if dtype != torch.float32 else 0)) * largest + CANCELLED
    error = (ours.to(exact.dtype) - exact).abs().max().item()
    if not error <= allowed:
        raise AssertionError(f"{what}: the error is {error:.3g}, and {allowed:.3g} is allowed")


def scanned(given: Inputs, gradient: torch.Tensor, softplus: bool) -> Inputs:
    """What the kernels make of it: the result, and the gradient of each input."""
    u, delta, A, B, C = (given[name] for name in ("u", "delta", "A", "B", "C"))
    D, z, bias = (given.get(name) for name in ("D", "z", "bias"))
    out, x, *gated = selective_scan_cuda.fwd(u, delta, A, B, C, D, z, bias, softplus)
    kept = out if z is not None else None
    found = selective_scan_cuda.bwd(
        u, delta, A, B, C, D, z, bias, gradient, x, kept, None, softplus, False
    )
    names = ("u", "delta", "A", "B", "C", "D", "bias", "z")
    gradients = dict(zip(names, found, strict=False))
    result = gated[0] if z is not None else out
    return {"out": result, **{name: gradients[name] for name in given}}


def expect_same(given: Inputs, softplus: bool, what: str) -> None:
    leaves = {name: one.detach().double().requires_grad_() for name, one in given.items()}
    exact = recurrence(**leaves, softplus=softplus)
    gradient = torch.randn_like(exact).to(given["u"].dtype)
    right = torch.autograd.grad(exact, list(leaves.values()), gradient.double())
    ours = scanned(given, gradient, softplus)
    dtype = given["u"].dtype
    expect_close(f"out, {what}", ours["out"], exact.detach(), dtype)
    for name, one in zip(leaves, right, strict=True):
        expect_close(f"gradient of {name}, {what}", ours[name], one, dtype)


def scan(dtype: torch.dtype, states: int, varies: bool) -> None:
    for length, (softplus, more) in itertools.product(LENGTHS, ((False, False), (True, True))):
        given = inputs(dtype, states, length, varies=varies)
        given |= extras(dtype, length) if more else {}
        expect_same(given, softplus, f"length {length}, softplus {softplus}, D, z and bias {more}")


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for (short, dtype), varies, states in itertools.product(TYPES.items(), (False, True), (1, 16)):
        name = f"fwd+bwd {short} {'varying' if varies else 'fixed'} {states} states"
        found[name] = functools.partial(scan, dtype, states, varies)
    return found


if __name__ == "__main__":
    sys.exit(run(cases))
