"""What the scripts verify.py share: cases, run one after another on this machine's GPU.

A script prints a line per case, its name and `right` or `WRONG: why`, and ends with 0 if all are
right, 1 if one is wrong, 77 if there is no GPU to run on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

import torch

NO_GPU = 77  # the customary exit code of a skipped test

Case = Callable[[], None]
Tensors = Sequence[torch.Tensor]

# The largest relative error of rounding once.
ROUNDING = {
    torch.float16: 2**-11,
    torch.bfloat16: 2**-8,
    torch.float32: 2**-24,
    torch.float64: 2**-53,
}


def run(cases: Callable[[], Mapping[str, Case]]) -> int:
    """Run all cases; the script's exit code."""
    if not torch.cuda.is_available():
        print("no GPU here: nothing was checked", file=sys.stderr)
        return NO_GPU
    # Else float32 products on newer GPUs have the precision of float16.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    print(f"on {torch.cuda.get_device_name()}, torch {torch.__version__}")
    results = [_is_right(name, case) for name, case in cases().items()]
    return 0 if all(results) else 1


def _is_right(name: str, case: Case) -> bool:
    torch.manual_seed(0)
    try:
        case()
        torch.cuda.synchronize()
    except (AssertionError, RuntimeError) as error:
        print(f"{name} WRONG: {str(error).strip().splitlines()[0]}", flush=True)
        return False
    print(f"{name} right", flush=True)
    return True


def forward_and_backward(
    function: Callable[..., torch.Tensor], inputs: Tensors, gradient: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """What a function returns, then the gradients of its inputs, given that of the result."""
    leaves = [one.detach().requires_grad_() for one in inputs]
    result = function(*leaves)
    return (result, *torch.autograd.grad(result, leaves, gradient.to(result.dtype)))


def expect_as_good(
    what: str,
    ours: torch.Tensor,
    plain: torch.Tensor,
    exact: torch.Tensor,
    *,
    factor: float,
    roundings: float,
) -> None:
    """Our largest error is at most `factor` times that of torch's plain operations in the same
    type, both against `exact`; and `roundings` of the largest value, for luck of torch's.
    """
    error = (ours.to(exact.dtype) - exact).abs().max().item()
    plain_error = (plain.to(exact.dtype) - exact).abs().max().item()
    allowed = factor * plain_error + roundings * ROUNDING[ours.dtype] * exact.abs().max().item()
    if not error <= allowed:
        raise AssertionError(f"{what}: the error is {error:.3g}, and {allowed:.3g} is allowed")


def expect_equal(what: str, ours: torch.Tensor, exact: torch.Tensor) -> None:
    """The same values."""
    different = (ours != exact).sum().item()
    if ours.shape != exact.shape or different:
        raise AssertionError(f"{what}: {different} of {exact.numel()} values differ")
