"""Checks an installed gsplat on a GPU against its definitions, computed with torch in float64.

Run it with the Python that the wheel is installed in. Covariances, projections of a pinhole camera,
and pixels, which are blended here one Gaussian after the other, with gradients.

Tolerances: gsplat computes in float32 with nvcc's fast approximations (`--use_fast_math`), of about
2**-21 each. Through a projection, a matrix inverse and some dozen blended Gaussians the relative
error stays below 1e-3 of the largest value, which is what its own tests allow. A Gaussian whose
alpha is just at the limit of 1/255 may be blended in one computation and not in the other: no more
than that, in a few pixels.
"""

from __future__ import annotations

import functools
import itertools
import sys
from pathlib import Path

import gsplat
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import Case, run

COUNT, WIDTH, HEIGHT, TILE = 37, 41, 33, 16
LEAST_ALPHA, MOST_ALPHA, LEAST_LIGHT = 1 / 255, 0.999, 1e-4
BLUR = 0.3  # pixels, added to each projected covariance
TOLERANCE = 1e-3


def expect_close(what: str, ours: torch.Tensor, exact: torch.Tensor, slack: float = 0.0) -> None:
    ours, exact = ours.detach().double().cpu(), exact.detach().double().cpu()
    bound = TOLERANCE * exact.abs().max().item() + slack
    worst = (ours - exact).abs().max().item()
    if not worst <= bound:
        raise AssertionError(f"{what}: the error is {worst:.3g}, and {bound:.3g} is allowed")


def rotations(quats: torch.Tensor) -> torch.Tensor:
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def shapes() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(COUNT, 4), torch.rand(COUNT, 3) * 0.3 + 0.1


def covariances(inverse: bool) -> None:
    quats, scales = shapes()
    ours = gsplat.quat_scale_to_covar_preci(quats.cuda(), scales.cuda())[inverse]
    turned = rotations(quats.double())
    sizes = scales.double() ** (-2 if inverse else 2)
    expect_close("matrices", ours, turned @ torch.diag_embed(sizes) @ turned.mT)


def camera() -> tuple[torch.Tensor, torch.Tensor]:
    """Of the world, turned and moved, and of the image."""
    view = torch.eye(4, dtype=torch.float64)
    view[:3, :3] = rotations(torch.tensor([1.0, 0.1, -0.05, 0.02], dtype=torch.float64))
    view[:3, 3] = torch.tensor([0.05, -0.1, 4.0])
    image = torch.tensor([[45.0, 0, WIDTH / 2], [0, 47.0, HEIGHT / 2], [0, 0, 1]])
    return view, image.double()


def projected(means, quats, scales):
    """Centres in pixels, depths and inverse covariances (three of the four numbers)."""
    view, image = camera()
    turned = rotations(quats)
    world = turned @ torch.diag_embed(scales**2) @ turned.mT
    here = means @ view[:3, :3].mT + view[:3, 3]
    x, y, z = here.unbind(-1)
    fx, fy, cx, cy = image[0, 0], image[1, 1], image[0, 2], image[1, 2]
    zero = torch.zeros_like(z)
    slope = torch.stack([fx / z, zero, -fx * x / z**2, zero, fy / z, -fy * y / z**2], -1)
    slope = slope.unflatten(-1, (2, 3)) @ view[:3, :3]
    flat = slope @ world @ slope.mT + BLUR * torch.eye(2, dtype=torch.float64)
    inverse = torch.linalg.inv(flat)
    conics = torch.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
    return torch.stack([fx * x / z + cx, fy * y / z + cy], -1), z, conics


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    quats, scales = shapes()
    return (torch.rand(COUNT, 3) - 0.5) * 2, quats, scales


def gsplats_projection(means, quats, scales):
    view, image = camera()
    return gsplat.fully_fused_projection(
        means, None, quats, scales, view.float().cuda()[None], image.float().cuda()[None],
        WIDTH, HEIGHT, eps2d=BLUR,
    )  # fmt: skip


def projection() -> None:
    inputs = scene()
    radii, means, depths, conics, _ = gsplats_projection(*(one.cuda() for one in inputs))
    seen = (radii[0] > 0).all(-1).cpu()
    if seen.sum() < COUNT // 2:
        raise AssertionError(f"only {seen.sum()} Gaussians are seen")
    exact = projected(*(one.double() for one in inputs))
    pairs = zip(("centres", "depths", "conics"), (means, depths, conics), exact, strict=True)
    for what, ours, right in pairs:
        expect_close(what, ours[0].cpu()[seen], right[seen])


def blended(means, depths, conics, colors, opacities):
    """The image, one Gaussian after the other."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    pixels = torch.stack([columns, rows], -1).double() + 0.5
    light = torch.ones(HEIGHT, WIDTH, dtype=torch.float64)
    image = torch.zeros(HEIGHT, WIDTH, colors.shape[-1], dtype=torch.float64)
    for one in depths.argsort():
        dx, dy = (pixels - means[one]).unbind(-1)
        a, b, c = conics[one]
        alpha = opacities[one] * torch.exp(-(a * dx**2 + c * dy**2) / 2 - b * dx * dy)
        alpha = alpha.clamp(max=MOST_ALPHA)
        alpha = torch.where(alpha < LEAST_ALPHA, 0.0, alpha)
        image = image + (light * alpha)[..., None] * colors[one]
        light = light * (1 - alpha)
    return image


def rasterization(channels: int, *, backward: bool) -> None:
    inputs = scene()
    # So faint that light is left everywhere: where to stop makes no difference.
    opacities = torch.rand(COUNT) * 0.15 + 0.02
    colors = torch.rand(COUNT, channels)
    ours = [one.cuda().requires_grad_() for one in (*inputs, colors, opacities)]
    view, image = camera()
    found, _, _ = gsplat.rasterization(
        *ours[:3], ours[4], ours[3], view.float().cuda()[None], image.float().cuda()[None],
        WIDTH, HEIGHT, eps2d=BLUR, packed=False, tile_size=TILE,
    )  # fmt: skip
    exact = [one.double().requires_grad_() for one in (*inputs, colors, opacities)]
    right = blended(*projected(*exact[:3]), *exact[3:])
    # A Gaussian at the limit is seen in one of the two: it adds that much.
    expect_close("pixels", found[0], right, slack=2 * LEAST_ALPHA)
    typical = (found[0].detach().double().cpu() - right.detach()).abs().median().item()
    if not typical <= TOLERANCE:
        raise AssertionError(f"pixels: half of them are off by {typical:.3g} or more")
    if backward:
        weights = torch.rand_like(right)
        (found[0] * weights.float().cuda()).sum().backward()
        (right * weights).sum().backward()
        for what, one, other in zip(
            ("means", "quats", "scales", "colors", "opacities"), ours, exact, strict=True
        ):
            largest = other.grad.abs().max().item()
            expect_close(f"gradient of {what}", one.grad, other.grad, slack=0.03 * largest)


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {
        "covariance": functools.partial(covariances, False),
        "precision": functools.partial(covariances, True),
        "projection": projection,
    }
    for channels, backward in itertools.product((1, 3, 32), (False, True)):
        name = f"pixels {channels} channels {'and gradients' if backward else ''}".rstrip()
        found[name] = functools.partial(rasterization, channels, backward=backward)
    return found


if __name__ == "__main__":
    sys.exit(run(cases))
