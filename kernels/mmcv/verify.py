"""Checks an installed mmcv's operators on a GPU against their definitions, computed with torch.

Run it with the Python that the wheel is installed in. A dozen of the operators, with gradients
where they have some: deformable attention and convolution, focal loss, suppression and overlaps of
boxes, neighbors, sampling and gathering of points, and filters. Sizes fill no block evenly.

Tolerances: the operators compute in the type of their input. Results may be off by 2**-16 of the
largest value (float32: a few hundred sums in any order, with nvcc's own exp and log of 2**-21), in
float64 by 2**-36. Deformable convolution multiplies matrices with cuBLAS, TF32 turned off. Where
two distances are within that of each other, either neighbor is right: distances are compared.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from mmcv import ops
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import Case, expect_equal, run

TYPES = {"fp32": torch.float32, "fp64": torch.float64}
ALLOWED = {torch.float32: 2**-16, torch.float64: 2**-36}


def expect_close(what: str, ours: torch.Tensor, exact: torch.Tensor) -> None:
    allowed = ALLOWED[ours.dtype] * max(exact.abs().max().item(), 1e-3)
    error = (ours.double() - exact.double()).abs().max().item()
    if ours.shape != exact.shape or not error <= allowed:
        raise AssertionError(f"{what}: the error is {error:.3g}, and {allowed:.3g} is allowed")


def expect_gradients(
    ours: torch.Tensor, leaves: Sequence[torch.Tensor], exact: torch.Tensor, wide
) -> None:
    """The same result, and for the same gradient of it those of all inputs."""
    expect_close("out", ours.detach(), exact.detach())
    given = torch.randn_like(exact)
    found = torch.autograd.grad(ours, leaves, given.to(ours.dtype))
    right = torch.autograd.grad(exact, wide, given.to(ours.dtype).double())
    for number, (one, other) in enumerate(zip(found, right, strict=True)):
        expect_close(f"gradient of input {number}", one, other)


def both(*tensors: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Leaves in their own type, and in float64."""
    leaves = [one.detach().requires_grad_() for one in tensors]
    return leaves, [one.detach().double().requires_grad_() for one in tensors]


def attention(dtype: torch.dtype) -> None:
    """Deformable attention over maps of several sizes, as bilinear samples that are weighted."""
    batch, heads, dim, queries, points = 2, 3, 20, 37, 5
    shapes = torch.tensor([[13, 7], [6, 5], [3, 1]], device="cuda")
    areas = shapes.prod(1)
    starts = torch.cat([areas.new_zeros(1), areas.cumsum(0)[:-1]])
    value = torch.rand(batch, int(areas.sum()), heads, dim, device="cuda").to(dtype)
    places = torch.rand(batch, queries, heads, len(shapes), points, 2, device="cuda").to(dtype)
    places = places * 1.2 - 0.1  # some are outside
    weights = torch.rand(batch, queries, heads, len(shapes), points, device="cuda").to(dtype)
    leaves, wide = both(value, places, weights)
    ours = MultiScaleDeformableAttnFunction.apply(
        leaves[0], shapes, starts, leaves[1], leaves[2], 2
    )
    parts = wide[0].split([int(area) for area in areas], dim=1)
    sampled = []
    for level, ((height, width), part) in enumerate(zip(shapes.tolist(), parts, strict=True)):
        maps = part.permute(0, 2, 3, 1).reshape(batch * heads, dim, height, width)
        grid = (2 * wide[1][:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled.append(F.grid_sample(maps, grid, align_corners=False))
    shares = wide[2].transpose(1, 2).flatten(0, 1)  # (batch and heads, queries, levels, points)
    exact = (torch.stack(sampled, 3) * shares[:, None]).sum((3, 4))
    exact = exact.view(batch, heads * dim, queries).transpose(1, 2)
    expect_gradients(ours, leaves, exact, wide)


def convolution(dtype: torch.dtype, moved: bool) -> None:
    """Deformable convolution that is moved by whole places, and weighted by a mask."""
    batch, channels, outputs, height, width = 2, 6, 10, 17, 13
    x = torch.randn(batch, channels, height, width, device="cuda").to(dtype)
    weight = torch.randn(outputs, channels, 3, 3, device="cuda").to(dtype)
    bias = torch.randn(outputs, device="cuda").to(dtype)
    down, right = (2, -1) if moved else (0, 0)
    offset = torch.tensor([down, right], device="cuda").to(dtype).repeat(9)
    offset = offset[None, :, None, None].expand(batch, -1, height, width).contiguous()
    mask = torch.rand(batch, 9, height, width, device="cuda").to(dtype)
    leaves, wide = both(x, mask, weight, bias)
    ours = ops.modulated_deform_conv2d(leaves[0], offset, *leaves[1:], 1, 1, 1, 1, 1)
    far = F.pad(wide[0], (4, 4, 4, 4))
    columns = torch.stack(
        [
            far[:, :, 3 + row + down :, 3 + column + right :][:, :, :height, :width]
            for row in range(3)
            for column in range(3)
        ],
        dim=2,
    )
    columns = columns * wide[1][:, None]
    exact = torch.einsum("bckhw,ock->bohw", columns, wide[2].flatten(2)) + wide[3][:, None, None]
    expect_gradients(ours, leaves, exact, wide)


def focal(dtype: torch.dtype) -> None:
    rows, classes, gamma, alpha = 151, 7, 2.0, 0.25
    x = torch.randn(rows, classes, device="cuda").to(dtype) * 3
    target = torch.randint(0, classes + 1, (rows,), device="cuda")  # the last one is background
    leaves, wide = both(x)
    ours = ops.sigmoid_focal_loss(leaves[0], target, gamma, alpha, None, "none")
    hot = F.one_hot(target, classes + 1)[:, :classes].double()
    chance = wide[0].sigmoid()
    exact = -alpha * hot * (1 - chance) ** gamma * F.logsigmoid(wide[0])
    exact = exact - (1 - alpha) * (1 - hot) * chance**gamma * F.logsigmoid(-wide[0])
    expect_gradients(ours, leaves, exact, wide)


def boxes(count: int) -> torch.Tensor:
    corner, size = torch.rand(count, 2) * 50, torch.rand(count, 2) * 20 + 1
    return torch.cat([corner, corner + size], 1).cuda()


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of each two boxes: what they share, of what both cover."""
    a, b = a.double(), b.double()
    sides = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    shared = sides.clamp(min=0).prod(2)
    areas = [(one[:, 2:] - one[:, :2]).prod(1) for one in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def overlaps() -> None:
    a, b = boxes(151), boxes(37)
    expect_close("overlaps", ops.bbox_overlaps(a, b), overlap(a, b))


def suppression() -> None:
    """The best box stays; of the rest, those that share too much with one that stays go."""
    limit = 0.3
    for count in (1, 65, 500):
        found, scores = boxes(count), torch.rand(count, device="cuda")
        shared = overlap(found, found).cpu()
        near = (shared - limit).abs() < 1e-4
        if near.any():  # either is right: so they are told apart
            found = found[~near.any(1).cuda()]
            scores = scores[: len(found)]
            shared = overlap(found, found).cpu()
        stays: list[int] = []
        for one in scores.argsort(descending=True).tolist():
            if all(shared[one, other] <= limit for other in stays):
                stays.append(one)
        _, ours = ops.nms(found, scores, limit)
        expect_equal(f"{count} boxes", ours.cpu(), torch.tensor(stays))


def points(count: int) -> torch.Tensor:
    return torch.rand(2, count, 3, device="cuda")


def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.double()[:, :, None] - b.double()[:, None]).square().sum(3)


def neighbors() -> None:
    """Of each of 151 points the nearest of 333, in the order of their distances."""
    known, asked = points(333), points(151)
    gaps = distances(asked, known)
    for k in (1, 7, 33):
        index = ops.knn(k, known, asked).transpose(1, 2).long()
        found = gaps.gather(2, index)
        expect_close(f"{k} neighbors", found.float(), gaps.topk(k, largest=False).values)
        if len(set(map(tuple, index[0].tolist()))) < 2:
            raise AssertionError("the same neighbors everywhere")
    far, index = ops.three_nn(asked, known)
    expect_close("distances", far, gaps.topk(3, largest=False).values.sqrt())
    expect_close("index", gaps.gather(2, index.long()).sqrt().float(), far)


def balls() -> None:
    """The first ones within the radius, in their order; the first again where there are too few."""
    known, asked, radius, count = points(333), points(151), 0.21, 9
    gaps = distances(asked, known)
    ours = ops.ball_query(0, radius, count, known, asked).cpu()
    inside, unclear = (gaps < radius**2).cpu(), ((gaps - radius**2).abs() < 1e-6).cpu()
    for batch in range(2):
        for row in range(151):
            if unclear[batch, row].any():
                continue
            right = inside[batch, row].nonzero()[:, 0][:count]
            if len(right):
                right = torch.cat([right, right[:1].expand(count - len(right))])
            else:
                right = torch.zeros(count, dtype=torch.long)
            expect_equal(f"ball {row}", ours[batch, row].long(), right)


def sampled() -> None:
    """Each point is as far as any from those before it; the first is the first."""
    known, count = points(333), 40
    index = ops.furthest_point_sample(known, count).long()
    gaps = distances(known, known)
    for batch in range(2):
        mine = index[batch]
        expect_equal("the first", mine[:1].cpu(), torch.zeros(1, dtype=torch.long))
        for number in range(1, count):
            near = gaps[batch][:, mine[:number]].min(1).values
            if near.max() - near[mine[number]] > 1e-6:
                raise AssertionError(f"point {number}: there is one further away")


def gathered() -> None:
    x = torch.randn(2, 5, 333, device="cuda")
    index = torch.randint(0, 333, (2, 71), device="cuda", dtype=torch.int32)
    leaves, wide = both(x)
    exact = wide[0].gather(2, index.long()[:, None].expand(-1, 5, -1))
    expect_gradients(ops.gather_points(leaves[0], index), leaves, exact, wide)
    index = torch.randint(0, 333, (2, 31, 7), device="cuda", dtype=torch.int32)
    leaves, wide = both(x)
    exact = wide[0].gather(2, index.long().flatten(1)[:, None].expand(-1, 5, -1))
    ours = ops.grouping_operation(leaves[0], index)
    expect_gradients(ours, leaves, exact.unflatten(2, (31, 7)), wide)


def filtered(dtype: torch.dtype) -> None:
    """Zeros between the values, then a filter, then every third one."""
    x = torch.randn(2, 3, 17, 13, device="cuda").to(dtype)
    kernel = torch.rand(4, 4, device="cuda")
    leaves, wide = both(x)
    ours = ops.upfirdn2d(leaves[0], kernel, up=2, down=3, padding=[2, 1, 1, 2])
    spread = wide[0].new_zeros(2, 3, 34, 26)
    spread[:, :, ::2, ::2] = wide[0]
    spread = F.pad(spread, (2, 1, 1, 2)).flatten(0, 1)[:, None]
    exact = F.conv2d(spread, kernel.double().flip(0, 1)[None, None])[:, :, ::3, ::3]
    expect_gradients(ours, leaves, exact.unflatten(0, (2, 3))[:, :, 0], wide)


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for short, dtype in TYPES.items():
        found[f"deformable attention fwd+bwd {short}"] = functools.partial(attention, dtype)
        for name, moved in (("", False), (" moved", True)):
            label = f"deformable convolution{name} fwd+bwd {short}"
            found[label] = functools.partial(convolution, dtype, moved)
        found[f"focal loss fwd+bwd {short}"] = functools.partial(focal, dtype)
        found[f"upfirdn2d fwd+bwd {short}"] = functools.partial(filtered, dtype)
    plain = (overlaps, suppression, neighbors, balls, sampled, gathered)
    return found | {check.__name__: check for check in plain}


if __name__ == "__main__":
    sys.exit(run(cases))
