"""Checks each case of an installed fatwheel_selftest on a GPU against torch on the CPU.

Run it with the Python that the wheel is installed in: `python verify.py [--code 90]`. It prints a
line for each case. Exit code: 0 all are right; 1 one is wrong; 77 there is no GPU to run on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import fatwheel_selftest as selftest
import torch

NO_GPU = 77  # the customary exit code of a skipped test

Case = Callable[[], None]


def expect_equal(result: torch.Tensor, expected: torch.Tensor) -> None:
    """The same bits: for operations that round at most once on either side."""
    difference = (result.cpu() != expected).sum().item()
    if difference:
        raise AssertionError(f"{difference} of {expected.numel()} elements differ")


def expect_close(result: torch.Tensor, expected: torch.Tensor, bound: torch.Tensor) -> None:
    """Within `bound` of a float64 reference, element by element."""
    error = (result.cpu().double() - expected).abs()
    worst = (error - bound).max().item()
    if not worst <= 0:
        raise AssertionError(f"error {error.max().item():.3g} exceeds the tolerance by {worst:.3g}")


def floats(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`count` numbers in [-2, 2), the same on every run."""
    return torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=dtype) * 4 - 2


def integers(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-(10**6), 10**6, (count,), generator=generator, dtype=torch.int32)


COUNT = 1_000_003  # fills no block evenly


def templates() -> None:
    x, z = floats(COUNT), floats(COUNT, torch.float64)
    expect_equal(selftest.square(x.cuda()), x * x)
    expect_equal(selftest.cube(z.cuda()), z * z * z)


def cub() -> None:
    x = floats(COUNT).abs()
    # CUB adds some items in each thread, then pairs: far less than 100 roundings on any path.
    bound = 100 * 2**-24 * x.double().sum()
    expect_close(selftest.total(x.cuda()), x.double().sum(), bound)
    k = integers(97 * selftest.SORTED_RUN)
    runs = k.view(-1, selftest.SORTED_RUN)
    expect_equal(selftest.sort_runs(k.cuda()), runs.sort(dim=1).values.flatten())


def anonymous() -> None:
    x = floats(COUNT)
    expect_equal(selftest.increment(x.cuda()), x + 1)


def statics() -> None:
    x = floats(COUNT)
    seen = []
    for c in ([1.0, -2.0, 0.5, 3.0], [0.25, 1.0, -1.5, 2.0]):
        coefficients = torch.tensor(c)
        terms = torch.stack([c[k] * x.double() ** k for k in range(4)])
        # Horner's rule in float32: at most 6 roundings of the sum of magnitudes.
        bound = 6 * 2**-24 * terms.abs().sum(0)
        y, evaluated = selftest.polynomial(x.cuda(), coefficients)
        expect_close(y, terms.sum(0), bound)
        seen.append(evaluated)
    if seen[1] - seen[0] != COUNT:
        raise AssertionError(f"the device counter went from {seen[0]} to {seen[1]}, not {COUNT} on")


def perarch() -> None:
    k = integers(1001 * selftest.WARP)
    sums, _ = selftest.warp_sums(k.cuda())
    expect_equal(sums, k.view(-1, selftest.WARP).sum(dim=1).int())


def twice() -> None:
    x = floats(COUNT)
    expect_equal(selftest.doubled(x.cuda()), 2 * x)
    expect_equal(selftest.tripled(x.cuda()), 3 * x)
    expect_equal(selftest.quintupled(x.cuda()), 5 * x)


def lineinfo() -> None:
    x = floats(COUNT)
    expect_equal(selftest.reversed_(x.cuda()), x.flip(0))


def code(wanted: str | None) -> Case:
    """That the code which runs was made for `wanted`; without it, for no newer GPU than this."""

    def check() -> None:
        _, arch = selftest.warp_sums(integers(selftest.WARP).cuda())
        major, minor = torch.cuda.get_device_capability()
        if arch > major * 100 + minor * 10:
            raise AssertionError(f"code for {arch // 10} ran on a GPU of {major}.{minor}")
        if wanted is not None and arch != int(wanted) * 10:
            raise AssertionError(f"code for {arch // 10} ran, not for {wanted}")

    return check


def is_right(name: str, case: Case) -> bool:
    """Run a case and print how it went."""
    try:
        case()
    except (AssertionError, RuntimeError) as error:
        print(f"{name:10} WRONG: {error}")
        return False
    print(f"{name:10} right")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--code", help="architecture whose code must be the one that runs: 90")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing was checked", file=sys.stderr)
        return NO_GPU
    cases: dict[str, Case] = {
        "templates": templates,
        "cub": cub,
        "anonymous": anonymous,
        "statics": statics,
        "perarch": perarch,
        "twice": twice,
        "lineinfo": lineinfo,
        "code": code(options.code),
    }
    print(f"on {torch.cuda.get_device_name()}, torch {torch.__version__}")
    results = [is_right(name, case) for name, case in cases.items()]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
