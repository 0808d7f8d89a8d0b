"""Checks an installed flash_attn on a GPU against attention in torch's own float32 operations.

Run it with the Python that the wheel is installed in. Forward and backward, float16 and bfloat16,
each head size that has kernels and two between, three masks, lengths that fill no block evenly,
as many heads of keys as of queries or fewer, sequences of different lengths, a cache of keys and
values with and without splits, dropout.

Tolerances are those of the project's own tests: the largest error of an output may be twice, that
of a gradient three times the largest error that torch's plain operations make in the same type;
both against float32. Plain operations round scores and probabilities to 16 bits, which flash_attn
keeps in float32 but adds up block by block, in another order: so it should be as good, and a
wrong kernel is wrong by far more. Twice one rounding of the largest value is added, as results are
rounded once in any case.
"""

from __future__ import annotations

import functools
import itertools
import sys
from pathlib import Path

import flash_attn
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import Case, expect_as_good, expect_equal, forward_and_backward, run

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# 40 and 111 run on the kernels for 64 and 128, partly filled; 111 is no multiple of 8 either.
HEAD_SIZES = (32, 40, 64, 96, 111, 128, 160, 192, 224, 256)
# Window: how many keys before and after a query's own place it sees; -1 is all of them.
MASKS = {"full": (-1, -1), "causal": (-1, 0), "window": (37, 11)}
# Lengths of queries and keys, heads of queries and keys.
SHAPES = ((113, 203, 6, 6), (128, 217, 6, 2), (239, 239, 4, 1), (1, 511, 6, 3))
BATCH = 2
DROPOUT = 0.17


def visible(queries: int, keys: int, window: tuple[int, int]) -> torch.Tensor:
    """Which keys each query sees; the last query stands at the last key."""
    place = torch.arange(queries, device="cuda")[:, None] + keys - queries
    key = torch.arange(keys, device="cuda")
    left, right = window
    seen = torch.ones(queries, keys, dtype=torch.bool, device="cuda")
    if left >= 0:
        seen &= key >= place - left
    if right >= 0:
        seen &= key <= place + right
    return seen


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """Plain attention over (batch, length, heads, head size), in the type of its inputs."""
    groups = q.shape[2] // k.shape[2]
    k, v = (one.repeat_interleave(groups, dim=2) for one in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


def normal(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, device="cuda").to(dtype)


def has_backward(size: int) -> bool:
    """Head sizes above 192 need the shared memory of A100 and H100 in the backward pass."""
    return size <= 192 or torch.cuda.get_device_capability() in ((8, 0), (9, 0))


def compare(function, reference, inputs: list[torch.Tensor], what: str) -> None:
    """A function of q, k and v against the reference, forward and where possible backward."""
    with torch.no_grad():
        gradient = torch.randn_like(function(*inputs))
    wide = [one.float() for one in inputs]
    if has_backward(inputs[0].shape[-1]):
        ours, plain, exact = (
            forward_and_backward(function, inputs, gradient),
            forward_and_backward(reference, inputs, gradient),
            forward_and_backward(reference, wide, gradient),
        )
    else:
        ours, plain, exact = (function(*inputs),), (reference(*inputs),), (reference(*wide),)
    names = ("out", "dq", "dk", "dv")
    for name, one, other, right in zip(names, ours, plain, exact, strict=False):
        factor = 2 if name == "out" else 3
        expect_as_good(f"{name}, {what}", one, other, right, factor=factor, roundings=2)


def dense(dtype: torch.dtype, size: int, mask: str) -> None:
    """flash_attn_func, every shape."""
    window = MASKS[mask]
    for queries, keys, heads, key_heads in SHAPES:
        q = normal(BATCH, queries, heads, size, dtype=dtype)
        k, v = (normal(BATCH, keys, key_heads, size, dtype=dtype) for _ in range(2))
        seen = visible(queries, keys, window)
        # With causal, windows are ignored by some versions and wanted at their default by others.
        options = {"causal": True} if mask == "causal" else {"window_size": window}
        function = functools.partial(flash_attn.flash_attn_func, **options)
        reference = functools.partial(attention, seen=seen)
        what = f"{queries} queries, {keys} keys, {heads} and {key_heads} heads"
        compare(function, reference, [q, k, v], what)


def varlen(dtype: torch.dtype, size: int, causal: bool) -> None:
    """flash_attn_varlen_func: sequences of different lengths, one after another."""
    lengths = ((1, 129), (63, 64), (130, 257), (65, 65), (200, 413))
    heads, key_heads = 6, 2
    starts = [list(itertools.accumulate((0, *column))) for column in zip(*lengths, strict=True)]
    q = normal(starts[0][-1], heads, size, dtype=dtype)
    k, v = (normal(starts[1][-1], key_heads, size, dtype=dtype) for _ in range(2))

    def function(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        places = [torch.tensor(one, dtype=torch.int32, device="cuda") for one in starts]
        longest = [max(column) for column in zip(*lengths, strict=True)]
        return flash_attn.flash_attn_varlen_func(q, k, v, *places, *longest, causal=causal)

    def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        parts = (one.split(list(column)) for one, column in _with_lengths(q, k, v, lengths))
        mask = MASKS["causal" if causal else "full"]
        results = [
            attention(q[None], k[None], v[None], visible(len(q), len(k), mask))[0]
            for q, k, v in zip(*parts, strict=True)
        ]
        return torch.cat(results)

    compare(function, reference, [q, k, v], f"{len(lengths)} sequences")


def _with_lengths(q, k, v, lengths):
    queries, keys = zip(*lengths, strict=True)
    return (q, queries), (k, keys), (v, keys)


def kvcache(dtype: torch.dtype, size: int, splits: int) -> None:
    """flash_attn_with_kvcache: new keys and values behind those of a cache, partly filled."""
    for new, causal in ((1, False), (5, True)):
        filled = torch.tensor([0, 337, 700], dtype=torch.int32, device="cuda")
        q = normal(3, new, 6, size, dtype=dtype)
        cache = [normal(3, 719, 2, size, dtype=dtype) for _ in range(2)]
        added = [normal(3, new, 2, size, dtype=dtype) for _ in range(2)]
        expected = [one.clone() for one in cache]
        for one, more in zip(expected, added, strict=True):
            for number, length in enumerate(filled.tolist()):
                one[number, length : length + new] = more[number]
        out = flash_attn.flash_attn_with_kvcache(
            q, *cache, *added, cache_seqlens=filled, causal=causal, num_splits=splits
        )
        for name, one, other in zip(("keys", "values"), cache, expected, strict=True):
            expect_equal(f"{name} of the cache", one, other)
        for number, length in enumerate(filled.tolist()):
            end = length + new
            seen = visible(new, end, MASKS["causal" if causal else "full"])
            inputs = [q[number, None], *(one[number, None, :end] for one in expected)]
            plain = attention(*inputs, seen)[0]
            exact = attention(*(one.float() for one in inputs), seen)[0]
            what = f"out, {length} keys and {new} new"
            expect_as_good(what, out[number], plain, exact, factor=2, roundings=2)


def dropout(dtype: torch.dtype, size: int, causal: bool) -> None:
    """With values of 1, an output is the sum of what is kept of a query's probabilities.

    Its mean is 1. The deviation of one is at most sqrt(p / (1 - p)), as the sum of squares of
    probabilities is at most 1; of the mean of all, six deviations are allowed. The sum of the
    values' gradients must be the outputs' sum: else the backward pass dropped others.
    """
    heads, length = 6, 499
    q, k = (normal(BATCH, length, heads, size, dtype=dtype) for _ in range(2))
    v = torch.ones_like(k)
    function = functools.partial(flash_attn.flash_attn_func, dropout_p=DROPOUT, causal=causal)
    gradient = torch.zeros_like(q)
    gradient[..., 0] = 1
    out, _, _, dv = forward_and_backward(function, [q, k, v], gradient)
    rows = out[..., 0].double()
    allowed = 6 * (DROPOUT / (1 - DROPOUT) / rows.numel()) ** 0.5
    mean = rows.mean().item()
    if not abs(mean - 1) <= allowed:
        raise AssertionError(f"the mean of the outputs is {mean:.4f}; 1 ± {allowed:.4f} is right")
    if not rows.std().item() > 0:
        raise AssertionError("nothing was dropped")
    back = dv[..., 0].double().sum().item() / rows.numel()
    if not abs(back - mean) <= 2e-3:
        raise AssertionError(f"forward dropped to {mean:.4f}, backward to {back:.4f}")


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}

    def add(function, name: str, *arguments: object) -> None:
        found[name] = functools.partial(function, *arguments)

    for (short, dtype), size in itertools.product(TYPES.items(), HEAD_SIZES):
        passes = "fwd+bwd" if has_backward(size) else "fwd"
        for mask in MASKS:
            add(dense, f"dense {passes} {short} {size} {mask}", dtype, size, mask)
        for causal in (False, True):
            mask = "causal" if causal else "full"
            add(varlen, f"varlen {passes} {short} {size} {mask}", dtype, size, causal)
        if hasattr(flash_attn, "flash_attn_with_kvcache") and size % 8 == 0:
            for splits in (1, 3, 0):
                how = f"{splits} splits" if splits else "as it chooses"
                add(kvcache, f"kvcache fwd {short} {size} {how}", dtype, size, splits)
        if size <= 192 and size % 8 == 0:
            for causal in (False, True):
                mask = "causal" if causal else "full"
                add(dropout, f"dropout fwd+bwd {short} {size} {mask}", dtype, size, causal)
    return found


if __name__ == "__main__":
    sys.exit(run(cases))
