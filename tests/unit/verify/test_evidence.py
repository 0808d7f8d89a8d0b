"""What is read of a wheel, in one pass."""

from __future__ import annotations

import hashlib
import zipfile
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.fatbin.embedded import Bound
from fatwheel.verify.evidence import examine, gather

from ...helpers.cudawheels import (
    MODULE,
    NONE,
    OTHER_KERNEL,
    OTHER_LAYOUT,
    OTHER_PLACE,
    OTHER_PTX,
    Linker,
    sound,
)
from ...helpers.tinywheels import Draft


@pytest.fixture
def linker(tmp_path: Path, tool: Callable[[str], str]) -> Linker:
    folder = tmp_path / "linker"
    folder.mkdir()
    return Linker(folder, tool)


def test_a_library(linker: Linker) -> None:
    data = linker.library(NONE, ["PyInit__C", "other", "PyInitU_x"], ["libfoo.so.1", "libc.so.6"])
    found = examine("a.so", memoryview(data), Bound())
    assert found.linked
    assert found.imports == ("libfoo.so.1", "libc.so.6")
    assert found.initialisers == {"PyInit__C", "PyInitU_x"}
    assert found.disparities == ()
    assert len(found.contents.units) == 1


def test_parameters_that_do_not_agree_are_told_once_a_binary() -> None:
    [found] = examine("a", memoryview(NONE + OTHER_LAYOUT + OTHER_LAYOUT), Bound()).disparities
    assert (found.severity, found.where) == ("wrong", "a")
    assert found.what == "sm_80 and sm_90a disagree on kernel parameters"
    assert len(found.details) == 4, "two containers, each with both sides"


def test_parameters_may_have_other_places() -> None:
    assert examine("a", memoryview(OTHER_PLACE), Bound()).disparities == ()


@pytest.mark.parametrize(
    ("data", "kernels"),
    [
        (OTHER_KERNEL, ["only in sm_90a: shape", "only in sm_80, compute_80, sm_120f: scale"]),
        (OTHER_PTX, ["only in sm_80, sm_90a, sm_120f: scale", "only in compute_80: shape"]),
    ],
)
def test_kernels_of_some_images_only_are_noted(data: bytes, kernels: list[str]) -> None:
    [found] = examine("a", memoryview(NONE + data), Bound()).disparities
    assert (found.severity, found.where) == ("note", "a")
    assert found.what.startswith("2 kernels only in some images")
    assert sorted(found.details) == sorted(kernels)


def test_every_file_is_hashed(tmp_path: Path, linker: Linker) -> None:
    path = sound(linker).write(tmp_path)
    found = gather(path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert found.files.keys() == contents.keys()
    for name, data in contents.items():
        digest = urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert (found.files[name].size, found.files[name].digest) == (len(data), digest)
    assert [binary.contents.path for binary in found.binaries] == [MODULE]
    assert found.shipped >= {"__init__.py", "_c.cpython-311-x86_64-linux-gnu.so", "record"}


def test_large_files_are_decompressed_once(
    tmp_path: Path, linker: Linker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for their first bytes, which tell whether they are binaries."""
    taken: Counter[str] = Counter()
    read = zipfile.ZipExtFile.read

    def counted(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        data = read(self, n)
        taken[self.name or ""] += len(data)
        return data

    draft = sound(linker)
    draft.files["demo/text"] = bytes(5 << 20)
    path = draft.write(tmp_path)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    gather(path)
    for name in ("demo/text", MODULE):
        assert taken[name] <= len(draft.files[name]) + 4096, name


def test_binaries_that_cannot_be_read_are_told_by_name(tmp_path: Path) -> None:
    draft = Draft(files={"a/x.so": b"\x7fELF", "a/y.fatbin": NONE[:-1], "a/z.fatbin": NONE})
    found = gather(draft.write(tmp_path))
    assert [finding.where.partition(":")[0] for finding in found.unreadable] == [
        "a/x.so", "a/y.fatbin",
    ]  # fmt: skip
    assert [binary.contents.path for binary in found.binaries] == ["a/z.fatbin"]
    assert "a/x.so" in found.files, "RECORD is checked for these as well"
