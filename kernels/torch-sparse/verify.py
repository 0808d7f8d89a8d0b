"""Checks an installed torch_sparse's kernels on a GPU against dense matrices in float64.

Run it with the Python that the wheel is installed in. Its libraries are loaded without the package
itself, which also wants torch_scatter. Sparse matrices have empty rows and rows of all lengths,
also more than a warp's 32; widths fill no block evenly.

Tolerances: a product may be off by as many roundings of its type as it adds up products, of the
sum of their sizes. What is largest or smallest is one of the values, rounded once; an index must
lead to it.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import ROUNDING, Case, expect_equal, run

TYPES = {"fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}
ROWS, COLUMNS = 67, 53
WIDTHS = (1, 7, 64, 131)
MODULES = ("convert", "diag", "spmm", "rw")
OPS = torch.ops.torch_sparse


def load() -> None:
    spec = importlib.util.find_spec("torch_sparse")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("torch_sparse is not installed")
    folder = Path(spec.submodule_search_locations[0])
    for module in MODULES:
        torch.ops.load_library(folder / f"_{module}_cuda.so")


class Matrix:
    """A sparse matrix in float64 and as indices: by rows, and where each would be by columns."""

    def __init__(self, dtype: torch.dtype) -> None:
        filled = torch.rand(ROWS, 1)  # from empty rows to full ones
        filled[:4, 0] = torch.tensor([0.0, 1.0, 0.0, 1.0])
        self.mask = torch.rand(ROWS, COLUMNS) < filled
        self.row, self.column = (one.cuda() for one in self.mask.nonzero(as_tuple=True))
        self.values = torch.randn(len(self.row), device="cuda").to(dtype)
        counts = self.mask.sum(1).cuda()
        self.pointer = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        columns = self.mask.sum(0).cuda()
        self.column_pointer = torch.cat([columns.new_zeros(1), columns.cumsum(0)])
        self.counts = counts
        self.by_column = (self.column * ROWS + self.row).argsort()

    def dense(self, values: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(ROWS, COLUMNS, dtype=torch.float64, device="cuda")
        return found.index_put((self.row, self.column), values.double())


def expect_sums(what: str, ours: torch.Tensor, exact: torch.Tensor, sizes: torch.Tensor) -> None:
    """sizes: the sums of the products' sizes; at most ROWS or the width are added up."""
    allowed = (max(ROWS, *WIDTHS) + 1) * ROUNDING[ours.dtype] * sizes
    wrong = ((ours.double() - exact).abs() > allowed).sum().item()
    if ours.shape != exact.shape or wrong:
        raise AssertionError(f"{what}: {wrong} of {exact.numel()} values are too far off")


def sums(dtype: torch.dtype, mean: bool) -> None:
    """Forward, and backward with respect to both."""
    for width, weighted in itertools.product(WIDTHS, (False, True)):
        sparse = Matrix(dtype)
        right = torch.randn(COLUMNS, width, device="cuda").to(dtype)
        leaves = [right.requires_grad_()]
        values = sparse.values.requires_grad_() if weighted else None
        leaves += [values] if values is not None else []
        arguments = (sparse.row, sparse.pointer, sparse.column, values)
        more = (sparse.counts,) if mean else ()
        function = OPS.spmm_mean if mean else OPS.spmm_sum
        ours = function(*arguments, *more, sparse.column_pointer, sparse.by_column, right)
        gradient = torch.randn(ROWS, width, device="cuda").to(dtype)
        found = torch.autograd.grad(ours, leaves, gradient)

        wide = [one.detach().double().requires_grad_() for one in leaves]
        given = wide[1] if weighted else torch.ones(len(sparse.row), device="cuda")
        shares = 1 / sparse.counts.clamp(min=1).double()[:, None] if mean else 1.0
        left = sparse.dense(given) * shares
        exact = left @ wide[0]
        expect_sums(f"width {width}", ours, exact, left.abs() @ wide[0].abs())
        rights = torch.autograd.grad(exact, wide, gradient.double())
        size = gradient.double().abs()
        sizes = [left.abs().mT @ size]
        if weighted:
            dense = (size @ wide[0].abs().mT) * shares
            sizes.append(dense[sparse.row, sparse.column])
        names = ("matrix", "values")
        for name, one, other, bound in zip(names, found, rights, sizes, strict=False):
            expect_sums(f"gradient of the {name}, width {width}", one, other, bound)


def extremes(dtype: torch.dtype, largest: bool) -> None:
    function = OPS.spmm_max if largest else OPS.spmm_min
    sign = 1 if largest else -1
    for width in WIDTHS:
        sparse = Matrix(dtype)
        right = torch.randn(COLUMNS, width, device="cuda").to(dtype)
        ours, index = function(sparse.pointer, sparse.column, sparse.values, right)
        products = sparse.values.double()[:, None] * right.double()[sparse.column]
        best = torch.full((ROWS, width), -torch.inf, dtype=torch.float64, device="cuda")
        rows = sparse.row[:, None].expand(-1, width)
        best = best.scatter_reduce(0, rows, sign * products, "amax")
        some = sparse.counts[:, None].expand(-1, width) > 0
        exact = torch.where(some, sign * best, 0.0)
        expect_sums(f"width {width}", ours, exact, exact.abs() / ROWS)
        led = products.gather(0, torch.where(some, index, 0))
        expect_sums(
            f"index, width {width}", torch.where(some, led, 0.0).to(dtype), exact, exact.abs()
        )
        if not (index[~some] == len(sparse.row)).all():
            raise AssertionError("an empty row has an index")


def conversions() -> None:
    """Pointers to rows, and back; also without entries, and with empty rows at both ends."""
    for counts in ([0, 3, 0, 0, 1000, 1, 0], [5], [0, 0, 7], [1] * 700):
        each = torch.tensor(counts, device="cuda")
        pointer = torch.cat([each.new_zeros(1), each.cumsum(0)])
        rows = torch.arange(len(counts), device="cuda").repeat_interleave(each)
        expect_equal("pointer", OPS.ind2ptr(rows, len(counts)), pointer)
        expect_equal("rows", OPS.ptr2ind(pointer, len(rows)), rows)


def diagonals() -> None:
    """Where entries go if a diagonal is put between them."""
    for offset in (0, 1, -1, 5, -9):
        mask = torch.rand(ROWS, COLUMNS) < 0.3
        places = torch.arange(COLUMNS) - torch.arange(ROWS)[:, None] == offset
        mask &= ~places  # the kernel wants matrices without entries there
        row, column = (one.cuda() for one in mask.nonzero(as_tuple=True))
        ours = OPS.non_diag_mask(row, column, ROWS, COLUMNS, offset)
        both = mask | places
        expect_equal(f"diagonal {offset}", ours.cpu(), mask[both])


def walks() -> None:
    """Each step follows an edge, and all edges of a node are taken."""
    sparse = Matrix(torch.float32)
    nodes = max(ROWS, COLUMNS)
    edges = torch.zeros(nodes, nodes, dtype=torch.bool)
    edges[:ROWS, :COLUMNS] = sparse.mask
    edges |= torch.eye(nodes, dtype=torch.bool)  # nobody is stuck
    column = edges.nonzero(as_tuple=True)[1].cuda()
    counts = edges.sum(1).cuda()
    pointer = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    start = torch.arange(nodes, device="cuda").repeat(301)
    walked = OPS.random_walk(pointer, column, start, 5)
    expect_equal("start", walked[:, 0], start)
    taken = edges.cuda()[walked[:, :-1], walked[:, 1:]]
    if walked.shape != (len(start), 6) or not taken.all():
        raise AssertionError("a step along no edge")
    first = torch.zeros_like(edges.cuda())
    first[walked[:, 0], walked[:, 1]] = True
    few = edges.cuda() & (counts <= 10)[:, None]
    if (few & ~first).any():
        raise AssertionError("301 walks did not take each of at most 10 edges")


def cases() -> dict[str, Case]:
    load()
    found: dict[str, Case] = {"conversions": conversions, "diagonals": diagonals, "walks": walks}
    for short, dtype in TYPES.items():
        for name, flag in (("sum", False), ("mean", True)):
            found[f"{name} fwd+bwd {short}"] = functools.partial(sums, dtype, flag)
        for name, flag in (("min", False), ("max", True)):
            found[f"{name} {short}"] = functools.partial(extremes, dtype, flag)
    return found


if __name__ == "__main__":
    sys.exit(run(cases))
