"""Checks xformers' own kernels on a GPU: 2:4 sparsity, against what is kept by definition.

Run it with the Python that the wheel is installed in. No two values that compete for a place are
equal, so that there is one right answer, and what is kept must be kept to the bit. (xformers'
attention calls torch's kernels or flash_attn's, which are other wheels' code.)

Tolerances: products of 16-bit numbers may be twice as far from float64 as torch's dense product
of the same values is, and 4 roundings for its luck: both add up in float32. The product of fp8
numbers on Hopper adds up in the tensor cores' own format, which keeps 13 bits of each of the sums
along the way: 2**-11 of the sum of the products' sizes, and one rounding of the result to bfloat16.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from xformers.ops import sp24

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import ROUNDING, Case, expect_as_good, expect_equal, run

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
SUFFIX = {"signed": "", "abs": "_abs"}
OPS = torch.ops.xformers


def greedy(tiles: torch.Tensor, most: int = 8) -> torch.Tensor:
    """What is kept of tiles (n, 16), the largest first: two of each row and column of four."""
    kept = torch.zeros(len(tiles), 4, 4, dtype=torch.bool)
    order = tiles.argsort(dim=1, descending=True)
    every = torch.arange(len(tiles))
    for rank in range(16):
        row, column = order[:, rank] // 4, order[:, rank] % 4
        free = (kept[every, row].sum(1) < 2) & (kept[every, :, column].sum(1) < 2)
        kept[every, row, column] |= free & (kept.sum((1, 2)) < most)
    return kept


def tiled(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix as its tiles of 4 by 4, (n, 16)."""
    rows, columns = matrix.shape
    return matrix.view(rows // 4, 4, columns // 4, 4).transpose(1, 2).reshape(-1, 16)


def untiled(tiles: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return tiles.view(rows // 4, columns // 4, 4, 4).transpose(1, 2).reshape(rows, columns)


def distinct(rows: int, columns: int, *, full: bool = False) -> torch.Tensor:
    """Whole numbers without 0, whose sizes differ within each tile, of either sign.

    full: keeping the largest ones, signed or by size, keeps two of each row and column.
    """
    count = rows * columns // 16
    found = torch.empty(0, 16)
    while len(found) < count:
        sizes = torch.rand(4 * count, 16).argsort(dim=1) + 1.0
        tiles = sizes * (torch.randint(0, 2, sizes.shape) * 2 - 1)
        if full:
            kept = [greedy(one).sum((1, 2)) == 8 for one in (tiles, tiles.abs())]
            tiles = tiles[kept[0] & kept[1]]
        found = torch.cat([found, tiles])
    return untiled(found[:count], rows, columns)


def largest(dtype: torch.dtype) -> None:
    """The mask of what is kept, and of what is if some of it is left to chance."""
    for rows, columns in ((4, 4), (36, 52), (132, 20)):
        x = distinct(rows, columns)
        ours = OPS.sparse24_largest_mask_2d(x.to("cuda", dtype))
        expect_equal(
            f"{rows} x {columns}", ours.cpu() != 0, untiled(greedy(tiled(x)), rows, columns)
        )
        ours = OPS.sparse24_largest_with_Krandom_mask_2d(x.to("cuda", dtype), 2).cpu() != 0
        sure = untiled(greedy(tiled(x), most=6), rows, columns)
        tiles = tiled(ours).view(-1, 4, 4)
        if (sure & ~ours).any() or (tiles.sum(1) > 2).any() or (tiles.sum(2) > 2).any():
            raise AssertionError(f"{rows} x {columns}: not 2 of 4, or the largest are left out")


def dense(kept: int, of: int, size: str) -> None:
    """The largest of each group in a row; the rest is 0."""
    x = distinct(192, 320)
    # Sizes differ within a group of 8, too.
    x = x * 2 + torch.arange(320) % 8 // 4 * x.sign()
    groups = x.view(192, -1, of)
    ranked = groups.abs() if size == "abs" else groups
    mask = torch.zeros_like(groups, dtype=torch.bool)
    mask.scatter_(2, ranked.topk(kept, dim=2).indices, True)
    ours = OPS.sparseNM_dense(x.to("cuda", torch.bfloat16), f"largest{SUFFIX[size]}", kept, of)
    expect_equal("values", ours.cpu().float(), (groups * mask).view(192, 320))


def kept_of(x: torch.Tensor, size: str) -> torch.Tensor:
    ranked = x.abs() if size == "abs" else x
    return untiled(greedy(tiled(ranked)), *x.shape)


def packed(dtype: torch.dtype, size: str) -> None:
    """Both ways: the values that are kept, row by row, and column by column."""
    for rows, columns in ((64, 64), (128, 352), (288, 96)):
        x = distinct(rows, columns, full=True)
        sparse = sp24.sparsify24(x.to("cuda", dtype), algo=f"largest{SUFFIX[size]}_values_greedy")
        mask = kept_of(x, size)
        for what, ours, values, kept in (
            ("rows", sparse.packed, x, mask),
            ("columns", sparse.packed_t, x.T, mask.T),
        ):
            right = values[kept].view(len(values), -1)
            found = ours[: right.shape[0], : right.shape[1]].cpu().float()
            expect_equal(f"{rows} x {columns}, {what}", found, right)


def gradients(dtype: torch.dtype, size: str) -> None:
    """What of a gradient is kept is what was kept of the values; scaled, if that is asked for."""
    rows, columns = 160, 192  # whole blocks of 32 x 64: the kernel writes nothing less
    x = distinct(rows, columns, full=True)
    mask = kept_of(x, size)
    sparse = sp24.sparsify24(x.to("cuda", dtype), algo=f"largest{SUFFIX[size]}_values_greedy")
    given = torch.randn(rows, columns).to(dtype)
    ours = OPS.sparse24_apply_dense_output(given.cuda(), sparse.threads_masks)
    expect_equal("gradient", ours.cpu(), given * mask)
    by_columns = given.T.contiguous().T.cuda()
    ours = OPS.sparse24_apply_dense_output(by_columns, sparse.threads_masks, mul0=0.5, mul1=2.0)
    expect_equal("scaled", ours.cpu(), torch.where(mask, given * 2, given / 2))


def like(dtype: torch.dtype) -> None:
    """Another matrix, sparse where the first one is."""
    rows, columns = 128, 192
    x = distinct(rows, columns, full=True)
    mask = kept_of(x, "signed")
    pattern = sp24.sparsify24(x.to("cuda", dtype), algo="largest_values_greedy")
    other = torch.randn(rows, columns).to(dtype)
    sparse = sp24.sparsify24_like(other.cuda(), pattern)
    expect_equal("rows", sparse.packed.cpu(), other[mask].view(rows, -1))
    expect_equal("columns", sparse.packed_t.cpu(), other.T[mask.T].view(columns, -1))


def products(dtype: torch.dtype) -> None:
    """On GPUs of 8.x: sparse times dense, and transposed, with gradients."""
    rows, columns, width = 160, 192, 72
    x = torch.randn(rows, columns).to("cuda", dtype)
    sparse = sp24.sparsify24(x, algo="largest_abs_values_greedy")
    ones = torch.ones_like(x)
    masked = x * OPS.sparse24_apply_dense_output(ones, sparse.threads_masks)
    for what, left, plain, height in (
        ("product", sparse, masked, columns),
        ("transposed", sparse.t(), masked.T.contiguous(), rows),
    ):
        right = torch.randn(height, width).to("cuda", dtype)
        exact = plain.double() @ right.double()
        expect_as_good(what, left @ right, plain @ right, exact, factor=2, roundings=4)


def hopper_product(scaled: bool) -> None:
    """On GPUs of 9.0: fp8, 2 of 4 along the sum."""
    rows, depth, width = 384, 768, 208
    a = torch.randn(rows, depth // 4, 4, device="cuda")
    mask = torch.zeros_like(a, dtype=torch.bool).scatter_(2, a.abs().topk(2, 2).indices, True)
    a = (a * mask).view(rows, depth).to(torch.float8_e4m3fn)
    b = torch.randn(width, depth, device="cuda").to(torch.float8_e4m3fn).T
    scales = {}
    exact = a.double() @ b.double()
    sums = a.double().abs() @ b.double().abs()
    if scaled:
        scales = {"a_scale": torch.rand(rows, 1, device="cuda") + 0.5}
        scales["b_scale"] = torch.rand(1, width, device="cuda") + 0.5
        factor = scales["a_scale"].double() * scales["b_scale"].double()
        exact, sums = exact * factor, sums * factor
    values, metadata = OPS._sparse24_sm90_cutlass_compress(a)
    ours = OPS._sparse24_fp8_sm90_cutlass_gemm(values, metadata, b, **scales)
    allowed = sums * 2**-11 + exact.abs() * ROUNDING[torch.bfloat16]
    wrong = ((ours.double() - exact).abs() > allowed).sum().item()
    if wrong or ours.shape != exact.shape:
        raise AssertionError(f"{wrong} of {exact.numel()} values are too far off")


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    checks: tuple[Callable[..., None], ...] = (packed, gradients)
    for short, dtype in TYPES.items():
        found[f"largest {short}"] = functools.partial(largest, dtype)
        found[f"like {short}"] = functools.partial(like, dtype)
        for check, size in itertools.product(checks, SUFFIX):
            found[f"{check.__name__} {size} {short}"] = functools.partial(check, dtype, size)
        if torch.cuda.get_device_capability()[0] == 8:
            found[f"products {short}"] = functools.partial(products, dtype)
    for (kept, of), size in itertools.product(((2, 4), (2, 8)), SUFFIX):
        found[f"{kept} of {of} {size}"] = functools.partial(dense, kept, of, size)
    if torch.cuda.get_device_capability() == (9, 0):
        found["product fp8"] = functools.partial(hopper_product, False)
        found["product fp8 scaled"] = functools.partial(hopper_product, True)
    return found


if __name__ == "__main__":
    sys.exit(run(cases))
