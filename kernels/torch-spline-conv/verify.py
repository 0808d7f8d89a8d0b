"""Checks an installed torch_spline_conv on a GPU against its definition, computed in float64.

Run it with the Python that the wheel is installed in. The B-splines are those of Fey et al.,
"SplineCNN" (2018): products over the dimensions of open or closed splines of degree 1, 2 or 3.

Tolerances: a weight is a product of polynomials, so a few roundings of its largest value; a sum
over S of them takes S more.
"""

from __future__ import annotations

import functools
import itertools
import sys
from pathlib import Path

import torch
import torch_spline_conv as spline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import ROUNDING, Case, expect_equal, run

TYPES = {"fp32": torch.float32, "fp64": torch.float64}
EDGES, NODES, INPUTS, OUTPUTS = 333, 41, 5, 7


def polynomials(degree: int, v: torch.Tensor) -> list[torch.Tensor]:
    """The pieces of a B-spline at v in [0, 1)."""
    if degree == 1:
        return [1 - v, v]
    if degree == 2:
        return [(1 - v).square() / 2, -v.square() + v + 0.5, v.square() / 2]
    cubic = v**3
    return [
        (1 - v) ** 3 / 6,
        (3 * cubic - 6 * v**2 + 4) / 6,
        (-3 * cubic + 3 * v**2 + 3 * v + 1) / 6,
        cubic / 6,
    ]


def basis(
    pseudo: torch.Tensor, kernel: torch.Tensor, is_open: torch.Tensor, degree: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and places of the kernel's points, for each edge."""
    edges, dimensions = pseudo.shape
    weights = torch.ones(edges, 1, dtype=pseudo.dtype)
    places = torch.zeros(edges, 1, dtype=torch.long)
    stride = 1
    for d in range(dimensions):
        size, opened = int(kernel[d]), bool(is_open[d])
        v = pseudo[:, d] * (size - degree * opened)
        start = v.floor()
        pieces = torch.stack(polynomials(degree, v - start), 1)
        index = (start.long()[:, None] + torch.arange(degree + 1)) % size
        # The first dimension changes fastest.
        weights = (pieces[:, :, None] * weights[:, None]).flatten(1)
        places = (index[:, :, None] * stride + places[:, None]).flatten(1)
        stride *= size
    return weights, places


def inputs(dtype: torch.dtype, dimensions: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pseudo = torch.rand(EDGES, dimensions, dtype=dtype) * 0.999
    kernel = torch.tensor([5, 4, 6][:dimensions])
    is_open = torch.tensor([1, 0, 1][:dimensions], dtype=torch.uint8)
    return pseudo, kernel, is_open


def bases(dtype: torch.dtype, dimensions: int, degree: int) -> None:
    pseudo, kernel, is_open = inputs(dtype, dimensions)
    ours = spline.spline_basis(pseudo.cuda(), kernel.cuda(), is_open.cuda(), degree)
    exact = basis(pseudo.double(), kernel, is_open, degree)
    expect_equal("places", ours[1].cpu(), exact[1])
    bound = 64 * dimensions * ROUNDING[dtype]
    worst = (ours[0].cpu().double() - exact[0]).abs().max().item()
    if not worst <= bound:
        raise AssertionError(f"weights: the error is {worst:.3g}, and {bound:.3g} is allowed")


def convolution(dtype: torch.dtype, dimensions: int, degree: int) -> None:
    """Forward and backward, against the same sums in torch."""
    pseudo, kernel, is_open = inputs(dtype, dimensions)
    x = torch.randn(NODES, INPUTS, dtype=dtype)
    weight = torch.randn(int(kernel.prod()), INPUTS, OUTPUTS, dtype=dtype)
    edges = torch.randint(NODES, (2, EDGES))
    gradient = torch.randn(NODES, OUTPUTS, dtype=dtype)

    def ours(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return spline.spline_conv(
            x,
            edges.cuda(),
            pseudo.cuda(),
            weight,
            kernel.cuda(),
            is_open.cuda(),
            degree,
            norm=False,
        )

    def plain(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        weights, places = basis(pseudo.double(), kernel, is_open, degree)
        rows = torch.einsum("es,ei,esio->eo", weights, x[edges[1]], weight[places])
        return torch.zeros(NODES, OUTPUTS, dtype=x.dtype).index_add(0, edges[0], rows)

    found = gradients(ours, x.cuda(), weight.cuda(), gradient.cuda())
    exact = gradients(plain, x.double(), weight.double(), gradient.double())
    for what, one, other in zip(
        ("result", "grad of x", "grad of weight"), found, exact, strict=True
    ):
        bound = 4096 * ROUNDING[dtype] * other.abs().max().item()
        worst = (one.cpu().double() - other).abs().max().item()
        if not worst <= bound:
            raise AssertionError(f"{what}: the error is {worst:.3g}, and {bound:.3g} is allowed")


def gradients(function, x, weight, gradient):
    leaves = [one.detach().requires_grad_() for one in (x, weight)]
    result = function(*leaves)
    return (result, *torch.autograd.grad(result, leaves, gradient))


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for (name, dtype), dimensions, degree in itertools.product(TYPES.items(), (1, 2, 3), (1, 2, 3)):
        label = f"{name} {dimensions}d degree {degree}"
        found[f"basis {label}"] = functools.partial(bases, dtype, dimensions, degree)
        found[f"conv {label}"] = functools.partial(convolution, dtype, dimensions, degree)
    return found


if __name__ == "__main__":
    sys.exit(run(cases))
