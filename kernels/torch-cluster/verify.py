"""Checks an installed torch_cluster on a GPU against brute force in torch, in float64.

Run it with the Python that the wheel is installed in. Points are drawn at random, in batches of
sizes that are no multiples of a block. Where two distances are within a few roundings of each
other, either neighbour is right: so it is their distances that are compared, and that no pair is
there twice.
"""

from __future__ import annotations

import functools
import itertools
import sys
from pathlib import Path

import torch
import torch_cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import Case, run

SIZES = (1, 33, 300, 7)
TYPES = {"fp32": torch.float32, "fp64": torch.float64}


def points(dtype: torch.dtype, dimensions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points, and which example each belongs to."""
    batch = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    return torch.rand(sum(SIZES), dimensions, dtype=dtype).cuda(), batch.cuda()


def distances(x: torch.Tensor, y: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """From each of y to each of x, squared; infinite between examples."""
    found = (y.double()[:, None] - x.double()[None]).square().sum(-1)
    return found.masked_fill(b[:, None] != a[None], torch.inf)


def slack(dtype: torch.dtype) -> float:
    """A squared distance of up to 3 takes a few roundings."""
    return 32 * torch.finfo(dtype).eps


def expect(what: str, holds: bool) -> None:
    if not holds:
        raise AssertionError(what)


def expect_no_pair_twice(pairs: torch.Tensor) -> None:
    expect("a pair is there twice", len(torch.unique(pairs, dim=1).T) == len(pairs.T))


def knn(dtype: torch.dtype, dimensions: int, k: int) -> None:
    x, a = points(dtype, dimensions)
    y, b = points(dtype, dimensions)
    pairs = torch_cluster.knn(x, y, k, a, b)
    expect_no_pair_twice(pairs)
    exact = distances(x, y, a, b)
    best = exact.topk(min(k, exact.shape[1]), largest=False).values
    for row in range(len(y)):
        ours = exact[row, pairs[1, pairs[0] == row]].sort().values
        wanted = best[row][best[row].isfinite()]
        expect(f"row {row} has {len(ours)} neighbours", len(ours) == len(wanted))
        expect(f"row {row} has farther ones", bool(((ours - wanted).abs() < slack(dtype)).all()))


def radius(dtype: torch.dtype, dimensions: int) -> None:
    x, a = points(dtype, dimensions)
    y, b = points(dtype, dimensions)
    pairs = torch_cluster.radius(x, y, 0.2, a, b, max_num_neighbors=1000)
    expect_no_pair_twice(pairs)
    exact = distances(x, y, a, b)
    ours = torch.zeros_like(exact, dtype=torch.bool)
    ours[pairs[0], pairs[1]] = True
    unclear = (exact - 0.04).abs() < slack(dtype)
    expect("other neighbours", bool(((ours == (exact < 0.04)) | unclear).all()))


def nearest(dtype: torch.dtype, dimensions: int) -> None:
    x, a = points(dtype, dimensions)
    y, b = points(dtype, dimensions)
    found = torch_cluster.nearest(x, y, a, b)
    exact = distances(y, x, b, a)
    ours = exact.gather(1, found[:, None])[:, 0]
    expect("not the nearest", bool((ours - exact.min(1).values < slack(dtype)).all()))


def sampled(dtype: torch.dtype, dimensions: int) -> None:
    """Each point is as far as any from those before it."""
    x, a = points(dtype, dimensions)
    index = torch_cluster.fps(x, a, ratio=0.5, random_start=False)
    exact = distances(x, x, a, a)
    for example, size in enumerate(SIZES):
        mine = index[a[index] == example]
        expect(f"example {example} has {len(mine)}", len(mine) == -(-size // 2))
        inside = (a == example).nonzero()[:, 0]
        for count in range(1, len(mine)):
            gap = exact[inside][:, mine[:count]].min(1).values
            here = exact[mine[count], mine[:count]].min()
            expect("a nearer one was taken", bool(gap.max() - here < slack(dtype)))


def grid(dtype: torch.dtype, dimensions: int) -> None:
    x, _ = points(dtype, dimensions)
    size = torch.full((dimensions,), 0.13, dtype=dtype).cuda()
    ours = torch_cluster.grid_cluster(x, size)
    start, end = x.min(0).values, x.max(0).values
    counts = ((end - start) / size).long() + 1
    cell = ((x - start) / size).long()
    strides = torch.cat([counts.new_ones(1), counts.cumprod(0)[:-1]])
    expect("other cells", torch.equal(ours, (cell * strides).sum(1)))


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for (name, dtype), dimensions in itertools.product(TYPES.items(), (1, 3, 17)):
        label = f"{name} {dimensions}d"
        for k in (1, 5, 33):
            found[f"knn {k} {label}"] = functools.partial(knn, dtype, dimensions, k)
        for check in (radius, nearest, sampled, grid):
            found[f"{check.__name__} {label}"] = functools.partial(check, dtype, dimensions)
    return found


if __name__ == "__main__":
    sys.exit(run(cases))
