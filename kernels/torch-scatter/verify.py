"""Checks an installed torch_scatter on a GPU against torch's own operations on the CPU in float64.

Run it with the Python that the wheel is installed in. Reductions and gathers by index, by sorted
index and by ranges, forward and backward, integers and floats, groups that are empty, of one or
of hundreds.

Tolerances: smallest, largest and gathered values are exact. A sum, mean or product of n values
takes n roundings in any order, each of at most the sum of the magnitudes (of the product, the
product itself), and one more for the result.
"""

from __future__ import annotations

import functools
import itertools
import sys
from pathlib import Path

import torch
import torch_scatter as scatter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import ROUNDING, Case, expect_equal, run

FLOATS = {"fp32": torch.float32, "fp64": torch.float64}
TYPES = {**FLOATS, "int32": torch.int32, "int64": torch.int64}
REDUCTIONS = ("sum", "mean", "min", "max", "mul")
# As torch names them; groups without a value become 0 as in torch_scatter, of mul 1.
TORCH = {"sum": "sum", "mean": "mean", "min": "amin", "max": "amax", "mul": "prod"}
COLUMNS = 37
SIZES = (0, 1, 2, 31, 32, 33, 300, 0, 7, 0)


def values(dtype: torch.dtype) -> torch.Tensor:
    if dtype.is_floating_point:
        return torch.randn(sum(SIZES), COLUMNS, dtype=dtype)
    return torch.randint(-9, 10, (sum(SIZES), COLUMNS), dtype=dtype)


def groups() -> torch.Tensor:
    """The group of each row, sorted."""
    return torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))


def reduced(x: torch.Tensor, index: torch.Tensor, how: str) -> torch.Tensor:
    start = torch.ones if how == "mul" else torch.zeros
    out = start(len(SIZES), COLUMNS, dtype=x.dtype)
    where = index[:, None].expand_as(x)
    return out.scatter_reduce(0, where, x, TORCH[how], include_self=how == "mul")


def expect_close(what: str, ours: torch.Tensor, x: torch.Tensor, index, how: str) -> None:
    """A reduction of x against the same in float64, within the bound above."""
    if not x.is_floating_point():
        if how == "mean":  # of integers: rounded down
            total = reduced(x, index, "sum")
            count = torch.tensor(SIZES).clamp(min=1)[:, None]
            expect_equal(what, ours.cpu(), torch.div(total, count, rounding_mode="floor"))
        else:
            expect_equal(what, ours.cpu(), reduced(x, index, how))
        return
    exact = reduced(x.double(), index, how)
    if how in ("min", "max"):
        expect_equal(what, ours.cpu().double(), exact)
        return
    count = torch.tensor(SIZES)[:, None] + 1
    bound = ROUNDING[x.dtype] * count * 2 * reduced(x.double().abs(), index, how)
    bound += torch.finfo(x.dtype).tiny  # below it, products have fewer digits
    worst = ((ours.cpu().double() - exact).abs() - bound).max().item()
    if not worst <= 0:
        raise AssertionError(f"{what}: the error is {worst:.3g} above the bound")


def by_index(dtype: torch.dtype, how: str) -> None:
    """scatter: rows in any order."""
    x, index = values(dtype), groups()
    order = torch.randperm(len(index))
    x, index = x[order], index[order]
    ours = scatter.scatter(x.cuda(), index.cuda(), dim=0, dim_size=len(SIZES), reduce=how)
    expect_close("out", ours, x, index, how)


def by_sorted_index(dtype: torch.dtype, how: str) -> None:
    """segment_coo: rows of one group beside each other."""
    x, index = values(dtype), groups()
    ours = scatter.segment_coo(x.cuda(), index.cuda(), dim_size=len(SIZES), reduce=how)
    expect_close("out", ours, x, index, how)


def by_ranges(dtype: torch.dtype, how: str) -> None:
    """segment_csr: where each group begins."""
    x = values(dtype)
    ours = scatter.segment_csr(x.cuda(), ranges().cuda(), reduce=how)
    expect_close("out", ours, x, groups(), how)


def ranges() -> torch.Tensor:
    return torch.tensor([0, *itertools.accumulate(SIZES)])


def gathers(dtype: torch.dtype) -> None:
    """gather_coo and gather_csr: a group's value for each of its rows."""
    x = values(dtype)[: len(SIZES)].contiguous()
    expected = x[groups()]
    expect_equal("coo", scatter.gather_coo(x.cuda(), groups().cuda()).cpu(), expected)
    expect_equal("csr", scatter.gather_csr(x.cuda(), ranges().cuda()).cpu(), expected)


def chosen(dtype: torch.dtype) -> None:
    """The places that min and max say hold the values that they say."""
    x, index = values(dtype), groups()
    filled = torch.tensor(SIZES) > 0
    results = {
        "scatter_min": scatter.scatter_min(x.cuda(), index.cuda(), dim=0, dim_size=len(SIZES)),
        "scatter_max": scatter.scatter_max(x.cuda(), index.cuda(), dim=0, dim_size=len(SIZES)),
        "segment_min_csr": scatter.segment_min_csr(x.cuda(), ranges().cuda()),
        "segment_max_csr": scatter.segment_max_csr(x.cuda(), ranges().cuda()),
    }
    for name, found in results.items():
        value, place = (one.cpu()[filled] for one in found)
        expect_equal(name, x.gather(0, place), value)
        expect_equal(f"groups of {name}", index[place], filled.nonzero().expand_as(place))


def gradients(dtype: torch.dtype) -> None:
    """Of sums: each row gets its group's; of a range's mean: shared by its rows."""
    x, index = values(dtype), groups()
    gradient = torch.randn(len(SIZES), COLUMNS, dtype=dtype)
    count = torch.tensor(SIZES, dtype=dtype).clamp(min=1)[:, None]
    functions = {
        "sum": lambda one: scatter.segment_csr(one, ranges().cuda(), reduce="sum"),
        "mean": lambda one: scatter.segment_csr(one, ranges().cuda(), reduce="mean"),
    }
    for how, function in functions.items():
        leaf = x.cuda().requires_grad_()
        (ours,) = torch.autograd.grad(function(leaf), leaf, gradient.cuda())
        exact = (gradient / count if how == "mean" else gradient)[index]
        error = (ours.cpu() - exact).abs() - 2 * ROUNDING[dtype] * exact.abs()
        if not error.max().item() <= 0:
            raise AssertionError(f"{how}: the error is {error.max().item():.3g} above the bound")


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for (short, dtype), how in itertools.product(TYPES.items(), REDUCTIONS):
        found[f"scatter {how} {short}"] = functools.partial(by_index, dtype, how)
        # Sorted rows and ranges have no products, and round means of integers as it happens.
        if how != "mul" and (how != "mean" or dtype.is_floating_point):
            found[f"segment_coo {how} {short}"] = functools.partial(by_sorted_index, dtype, how)
            found[f"segment_csr {how} {short}"] = functools.partial(by_ranges, dtype, how)
    for short, dtype in TYPES.items():
        found[f"gather {short}"] = functools.partial(gathers, dtype)
        found[f"places {short}"] = functools.partial(chosen, dtype)
    for short, dtype in FLOATS.items():
        found[f"gradients {short}"] = functools.partial(gradients, dtype)
    return found


if __name__ == "__main__":
    sys.exit(run(cases))
