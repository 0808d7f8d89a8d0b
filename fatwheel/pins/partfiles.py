"""Writes the files of parts (`config.parts`): one text for one meaning.

Tables and pins are sorted, a pinned file takes one line, and the comments at the top of a file
stay. So a diff of two locks shows what is new, and locking again changes nothing.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.utils import parse_wheel_filename
from packaging.version import Version

from ..config.parts import (
    Archive,
    CudaRelease,
    PackageFiles,
    PinnedFile,
    TorchRelease,
    TorchVariant,
    TorchWheel,
    release,
)
from ..storage import files

_WIDTH = 96  # characters of a line of values, without its indent

Value = str | int | Sequence[str] | Sequence[int]


def cuda_text(cuda: CudaRelease) -> str:
    """parts/cuda/VERSION.toml, without its comments."""
    return _text(
        [
            *_pairs(version=cuda.version, nvcc=cuda.nvcc, gcc=cuda.gcc, msvc=cuda.msvc),
            *_wrapped("archs", [str(arch) for arch in cuda.archs]),
            *_list("packages", [json.dumps(pin) for pin in sorted(cuda.packages)]),
            *_list("tools", [json.dumps(pin) for pin in sorted(cuda.tools)]),
            *_list("libraries", [json.dumps(pin) for pin in sorted(cuda.libraries)]),
            *_pairs(manifest=cuda.manifest),
            *_list("archives", [_archive(one) for one in sorted(cuda.archives, key=_archive_key)]),
        ]
    )


def _archive_key(one: Archive) -> tuple[str, str]:
    return one.platform, one.name


def _archive(one: Archive) -> str:
    return _inline(
        name=one.name,
        version=one.version,
        platform=one.platform,
        size=one.size,
        sha256=one.sha256,
    )


def torch_text(torch: TorchRelease) -> str:
    """parts/torch/VERSION.toml, without its comments."""
    lines = [
        *_pairs(version=torch.version, gcc=torch.gcc),
        *_list("tools", [json.dumps(pin) for pin in sorted(torch.tools)]),
    ]
    for variant in sorted(torch.variants, key=_variant_key):
        lines += ["", "[[variants]]", *_variant(variant)]
    return _text(lines)


def _variant_key(one: TorchVariant) -> tuple[str, tuple[int, ...]]:
    return one.platform, release(one.cuda)


def _variant(one: TorchVariant) -> Iterator[str]:
    yield from _pairs(cuda=one.cuda, platform=one.platform)
    yield from _list("requires", [json.dumps(pin) for pin in sorted(one.requires)])
    wheels = sorted(one.wheels, key=lambda wheel: release(wheel.python))
    yield from _list("wheels", [_wheel(wheel) for wheel in wheels])


def _wheel(one: TorchWheel) -> str:
    return _inline(python=one.python, file=one.file, size=one.size, sha256=one.sha256, url=one.url)


def package_text(package: PackageFiles) -> str:
    """parts/packages/NAME.toml, without its comments."""
    ordered = sorted(package.files, key=_file_key)
    return _text(_list("files", [_file(one) for one in ordered]))


def _file_key(one: PinnedFile) -> tuple[Version, str]:
    return parse_wheel_filename(one.file)[1], one.file


def _file(one: PinnedFile) -> str:
    return _inline(file=one.file, size=one.size, sha256=one.sha256, url=one.url)


def write(path: Path, text: str, heading: str) -> bool:
    """Write a file; whether it changed. heading: the comments of one that is new.

    Raises OSError.
    """
    old = path.read_text(encoding="utf-8") if path.exists() else None
    head = heading if old is None else comments_of(old)
    new = f"{head}\n{text}" if head else text
    if new == old:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as stream:
        stream.write(new.encode())
    return True


def comments_of(text: str) -> str:
    """The comments that a file begins with."""
    kept = []
    for line in text.splitlines(keepends=True):
        if not line.startswith("#"):
            break
        kept.append(line)
    return "".join(kept)


# -- TOML ------------------------------------------------------------------------------------------


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _pairs(**values: Value) -> Iterator[str]:
    """`key = value` for each that is known."""
    for key, value in values.items():
        if value:
            yield f"{key} = {_value(value)}"


def _inline(**values: Value) -> str:
    return "{ " + ", ".join(_pairs(**values)) + " }"


def _value(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list(key: str, items: Sequence[str]) -> Iterator[str]:
    """One line for each item."""
    if items:
        yield f"{key} = ["
        yield from (f"  {item}," for item in items)
        yield "]"


def _wrapped(key: str, items: Sequence[str]) -> Iterator[str]:
    """As many items to a line as fit."""
    yield f"{key} = ["
    text = " ".join(f"{json.dumps(item)}," for item in items)
    yield from textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    yield "]"
