"""A sound wheel passes; every way to spoil it is found by the check that is there for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fatwheel.errors import FormatError, UsageError
from fatwheel.verify.report import Report, refusal, verify_wheel

from ...helpers.cudawheels import (
    LABEL,
    LZ4,
    MODULE,
    NONE,
    OTHER_LAYOUT,
    ZSTD,
    Linker,
    sound,
    without,
)
from ...helpers.schemas import schema_of
from ...helpers.tinywheels import Draft, record_hash

SCHEMA = schema_of("verify")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
INIT = "demo/__init__.py"
INFO = f"demo-1.0+{LABEL}.dist-info"

Spoil = Callable[[Draft, Linker], None]


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Linker:
    return Linker(tmp_path_factory.mktemp("linker"), tool)


def verify(path: Path) -> Report:
    """Verify a wheel, and check the result against the schema."""
    report = verify_wheel(path)
    document = report.to_json()
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)
    assert json.loads(json.dumps(document)) == document, "not plain JSON"
    return report


def results(report: Report) -> dict[str, str]:
    """The checks that are not ok."""
    return {check.name: check.result for check in report.checks if check.result != "ok"}


def said(report: Report, check: str) -> str:
    """All that a check says, in one text."""
    [found] = [one for one in report.checks if one.name == check]
    return "\n".join(
        f"{finding.severity}: {finding.where}: {finding.what}\n" + "\n".join(finding.details)
        for finding in found.findings
    )


# -- ways to spoil a wheel -----------------------------------------------------------------------


def row(path: str, line: str | None) -> Spoil:
    """Another line of RECORD."""

    def spoil(draft: Draft, linker: Linker) -> None:
        draft.rows[path] = line

    return spoil


def facts(**changes: str) -> Spoil:
    """Other names, METADATA or WHEEL."""

    def spoil(draft: Draft, linker: Linker) -> None:
        for name, value in changes.items():
            setattr(draft, name, value)

    return spoil


def renamed(module: str) -> Spoil:
    """The module under another name."""

    def spoil(draft: Draft, linker: Linker) -> None:
        draft.files[module] = draft.files.pop(MODULE)

    return spoil


def library(
    device: bytes = NONE, *, init: str = "PyInit__C", needs: tuple[str, ...] = (),
    asks: tuple[str, ...] = (),
) -> Spoil:  # fmt: skip
    """The module with other contents."""

    def spoil(draft: Draft, linker: Linker) -> None:
        draft.files[MODULE] = linker.library(device, [init], needs, asks)

    return spoil


# Calls Python, and nothing in it is a module.
NOTHING_TO_IMPORT = library(init="other", asks=("PyModule_Create2",))


def extra(path: str, content: bytes) -> Spoil:
    def spoil(draft: Draft, linker: Linker) -> None:
        draft.files[path] = content

    return spoil


def also(*spoils: Spoil) -> Spoil:
    def spoil(draft: Draft, linker: Linker) -> None:
        for one in spoils:
            one(draft, linker)

    return spoil


def module(content: bytes) -> Spoil:
    """The module with what is no library."""
    return extra(MODULE, content)


def cut(draft: Draft, linker: Linker) -> None:
    draft.files[MODULE] = draft.files[MODULE][:-300]


def narrow(draft: Draft, linker: Linker) -> None:
    """A module for 32-bit systems, by the fifth byte of the file."""
    data = draft.files[MODULE]
    draft.files[MODULE] = data[:4] + b"\x01" + data[5:]


def extra_fatbin(data: bytes) -> Spoil:
    def spoil(draft: Draft, linker: Linker) -> None:
        draft.files["demo/more.fatbin"] = data

    return spoil


def signed(draft: Draft, linker: Linker) -> None:
    draft.files[f"{INFO}/RECORD.jws"] = b"{}"
    draft.rows[f"{INFO}/RECORD.jws"] = None


def plain(draft: Draft, linker: Linker) -> None:
    """No device code at all."""
    draft.version = "1.0"
    draft.files[MODULE] = linker.library(b"", ["PyInit__C"])


GOOD_HASH = record_hash(b"from . import _C\n")
OTHER_HASH = record_hash(b"other")
BASE = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0+" + LABEL + "\n"
TAG = "Tag: cp311-cp311-linux_x86_64\n"

WRONG: list[tuple[str, str, str, Spoil]] = [
    ("another hash", "record", "its sha256 is not the one", row(INIT, f"{INIT},{OTHER_HASH},17")),
    ("another size", "record", "17 bytes, RECORD says 18", row(INIT, f"{INIT},{GOOD_HASH},18")),
    ("a size that is no number", "record", "says ten", row(INIT, f"{INIT},{GOOD_HASH},ten")),
    ("a file that is not listed", "record", "it is not in RECORD", row(INIT, None)),
    ("a file that is missing", "record", "not in the wheel", row("gone", f"gone,{OTHER_HASH},5")),
    ("listed twice", "record", "lists it twice", row("again", f"{INIT},{GOOD_HASH},17")),
    ("no hash", "record", "has no hash", row(INIT, f"{INIT},,17")),
    ("md5", "record", "'md5'", row(INIT, f"{INIT},md5=1B2M2Y8AsgTpgAmY7PhCfg,17")),
    ("sha1", "record", "'sha1'", row(INIT, f"{INIT},sha1=2jmj7l5rSw0yVb_vlWAYkK_YBwk,17")),
    ("an unknown hash", "record", "'magic'", row(INIT, f"{INIT},magic=x,17")),
    ("two parts", "record", "2 parts, not three", row(INIT, f"{INIT},{GOOD_HASH}")),
    ("an open quote", "record", "cannot be read", row("open", '"open,,')),
    (
        "a hash of itself",
        "record",
        "cannot hold its own",
        row(f"{INFO}/RECORD", f"{INFO}/RECORD,{OTHER_HASH},5"),
    ),
    (
        "another version",
        "names",
        "names do not agree",
        facts(filename=f"demo-1.1+{LABEL}-cp311-cp311-linux_x86_64.whl"),
    ),
    (
        "another project",
        "names",
        "names do not agree",
        facts(filename=f"memo-1.0+{LABEL}-cp311-cp311-linux_x86_64.whl"),
    ),
    (
        "another folder",
        "names",
        "names do not agree",
        facts(dist_info=f"memo-1.0+{LABEL}.dist-info"),
    ),
    (
        "METADATA of another",
        "names",
        "METADATA says demo 2.0",
        facts(metadata="Metadata-Version: 2.1\nName: demo\nVersion: 2.0\n"),
    ),
    (
        "another Python",
        "modules",
        "only cp311 loads it, the wheel is for cp310-cp310",
        facts(filename=f"demo-1.0+{LABEL}-cp310-cp310-linux_x86_64.whl"),
    ),
    ("no name of a wheel", "names", "not the name of a wheel", facts(filename="download.whl")),
    ("a format to come", "names", "format is 2.0", facts(wheel=f"Wheel-Version: 2.0\n{TAG}")),
    ("no format", "names", "format is none", facts(wheel=TAG)),
    ("no metadata version", "names", "Metadata-Version", facts(metadata=BASE.partition("\n")[2])),
    (
        "an arch that is not inside",
        "label",
        "only in the version: sm_86",
        facts(version="1.0+cu130.sm80.ptx.sm86.sm90a.sm120f"),
    ),
    (
        "PTX that is not inside",
        "label",
        "only in the version: compute_90a",
        facts(version="1.0+cu130.sm80.ptx.sm90a.ptx.sm120f"),
    ),
    (
        "an arch that is not named",
        "label",
        "only inside: sm_120f",
        facts(version="1.0+cu130.sm80.ptx.sm90a"),
    ),
    (
        "PTX that is not named",
        "label",
        "only inside: compute_80",
        facts(version="1.0+cu130.sm80.sm90a.sm120f"),
    ),
    (
        "another CUDA",
        "label",
        "says CUDA 12, its binaries need CUDA 13",
        facts(version="1.0+cu124"),
    ),
    (
        "Windows",
        "platform",
        "for Linux x86_64, the wheel for win_amd64",
        facts(tag="cp311-cp311-win_amd64"),
    ),
    ("another machine", "platform", "for linux_aarch64", facts(tag="cp311-cp311-linux_aarch64")),
    (
        "musl of another machine",
        "platform",
        "musllinux_1_2_aarch64",
        facts(tag="cp311-cp311-musllinux_1_2_aarch64"),
    ),
    ("any system", "platform", "runs on any system", facts(tag="py3-none-any")),
    ("a library that is cut off", "binaries", "cut off", cut),
    ("a library of 32 bits", "binaries", "64-bit", narrow),
    ("an empty module", "modules", "it is empty", module(b"")),
    ("a module that was not fetched", "modules", "a Git LFS pointer", module(LFS)),
    ("a module for macOS", "modules", "a library for macOS", module(bytes.fromhex("cffaedfe07"))),
    ("text for a module", "modules", "neither an ELF file", module(b"hello")),
    ("device code for a module", "modules", "it is not a library", module(NONE)),
    ("nothing to import", "modules", "does not export PyInit__C", NOTHING_TO_IMPORT),
    (
        "a module of another Python",
        "modules",
        "only cp310 loads it",
        renamed("demo/_C.cpython-310-x86_64-linux-gnu.so"),
    ),
    (
        "a module of another ABI",
        "modules",
        "only cp311t loads it",
        renamed("demo/_C.cpython-311t-x86_64-linux-gnu.so"),
    ),
    (
        "a module of another machine",
        "modules",
        "aarch64-linux-gnu",
        renamed("demo/_C.cpython-311-aarch64-linux-gnu.so"),
    ),
    (
        "one Python's library for a stable ABI",
        "imports",
        "it needs libpython3.10.so.1.0, the wheel is for cp310-abi3",
        also(
            library(needs=("libpython3.10.so.1.0",)),
            renamed("demo/_C.abi3.so"),
            facts(tag="cp310-abi3-linux_x86_64"),
        ),
    ),
    (
        "another libpython",
        "imports",
        "libpython3.10.so.1.0",
        library(needs=("libpython3.10.so.1.0",)),
    ),
    ("other parameters", "parity", "scale: sm_90a has", library(OTHER_LAYOUT)),
]

WARNINGS: list[tuple[str, str, str, Spoil]] = [
    ("a module of another name", "modules", "it exports PyInit__D", library(init="PyInit__D")),
    ("a linker script", "modules", "named like a library", extra("demo/libx.so", b"GROUP(y)")),
    (
        "operators for torch",
        "modules",
        "torch.ops.load_library can load it",
        library(init="other", needs=("libtorch_cpu.so",)),
    ),
    (
        "operators for torch, named as a module of another Python",
        "modules",
        "torch.ops.load_library can load it",
        also(
            library(init="other", needs=("libtorch_cpu.so",)),
            renamed("demo/_C.cpython-310-x86_64-linux-gnu.so"),
        ),
    ),
    (
        "a library for ctypes that setuptools named as a module",
        "modules",
        "it does not export PyInit__C (ctypes can load it)",
        library(init="other"),
    ),
    ("no device code", "coverage", "no device code in this wheel", plain),
    ("an arch in some units", "coverage", "sm_90a in 1 of 2 units", library(NONE + without(2))),
    ("RECORD is not in itself", "record", "does not list itself", row(f"{INFO}/RECORD", None)),
    ("no size", "record", "has no size", row(INIT, f"{INIT},{GOOD_HASH},")),
    (
        "pure, with binaries",
        "names",
        "Root-Is-Purelib",
        facts(wheel=f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n{TAG}"),
    ),
    (
        "a build tag",
        "names",
        "build tags",
        facts(filename=f"demo-1.0+{LABEL}-1-cp311-cp311-linux_x86_64.whl"),
    ),
    (
        "other tags in WHEEL",
        "names",
        "the wheel's tags do not agree",
        facts(wheel="Wheel-Version: 1.0\nTag: py3-none-linux_x86_64\n"),
    ),
    ("an unknown platform", "platform", "plan9", facts(tag="cp311-cp311-plan9")),
    (
        "two runtimes",
        "imports",
        "CUDA 12 and CUDA 13",
        library(needs=("libcudart.so.13", "libcudart.so.12")),
    ),
    (
        "a module for one of many",
        "modules",
        "only cp311 loads it",
        facts(tag="py3-none-linux_x86_64"),
    ),
]


@pytest.mark.parametrize(
    ("check", "text", "spoil"), [item[1:] for item in WRONG], ids=[item[0] for item in WRONG]
)
def test_what_is_wrong_is_found_and_named(
    tmp_path: Path, linker: Linker, check: str, text: str, spoil: Spoil
) -> None:
    draft = sound(linker)
    spoil(draft, linker)
    report = verify(draft.write(tmp_path))
    assert results(report).get(check) == "wrong", f"found: {results(report)}"
    assert text in said(report, check)
    assert not report.ok
    error = refusal(report)
    assert check in error.what
    assert error.exit_code == 13


@pytest.mark.parametrize(
    ("check", "text", "spoil"), [item[1:] for item in WARNINGS], ids=[item[0] for item in WARNINGS]
)
def test_what_may_be_a_problem_is_a_warning(
    tmp_path: Path, linker: Linker, check: str, text: str, spoil: Spoil
) -> None:
    draft = sound(linker)
    spoil(draft, linker)
    report = verify(draft.write(tmp_path))
    assert results(report).get(check) == "warning", f"found: {results(report)}"
    assert text in said(report, check)


def test_a_sound_wheel_passes_every_check(tmp_path: Path, linker: Linker) -> None:
    report = verify(sound(linker).write(tmp_path))
    assert results(report) == {}
    assert report.ok
    document = report.to_json()
    assert document["wheel"]["version"] == f"1.0+{LABEL}"
    [binary] = document["binaries"]
    assert (binary["path"], binary["kernels"], binary["containers"]) == (MODULE, 2, 1)
    assert binary["imports"] == [
        {"name": "libc10.so", "from": "torch", "version": None},
        {"name": "libcudart.so.13", "from": "cuda", "version": "13"},
        {"name": "libc.so.6", "from": "system", "version": None},
    ]
    assert binary["coverage"] == document["coverage"]
    assert document["coverage"]["8.6"] == "native"


@pytest.mark.parametrize("spoil", [signed, library(ZSTD, needs=("libcudart.so.13",)), library(LZ4)])
def test_what_is_allowed_is_not_warned_of(tmp_path: Path, linker: Linker, spoil: Spoil) -> None:
    """A signature is never in RECORD; CUDA 13 needs newer drivers than zstd does."""
    draft = sound(linker)
    spoil(draft, linker)
    assert results(verify(draft.write(tmp_path))) == {}


def test_all_mistakes_are_found_at_once(tmp_path: Path, linker: Linker) -> None:
    draft = sound(linker)
    for spoil in (
        row(INIT, f"{INIT},{OTHER_HASH},99"),
        facts(tag="cp310-cp310-win_amd64", version="1.0+cu124.sm86"),
        library(OTHER_LAYOUT, init="no", needs=("libcudart.so.13",), asks=("Py_IncRef",)),
    ):
        spoil(draft, linker)
    report = verify(draft.write(tmp_path))
    assert results(report) == dict.fromkeys(
        ("record", "label", "platform", "modules", "parity"), "wrong"
    )
    assert said(report, "record").count("wrong: demo/__init__.py") == 2


def test_wrongness_is_told_although_a_binary_cannot_be_read(tmp_path: Path, linker: Linker) -> None:
    draft = sound(linker)
    cut(draft, linker)
    row(INIT, None)(draft, linker)
    report = verify(draft.write(tmp_path))
    assert results(report)["record"] == results(report)["binaries"] == "wrong"


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "DEMO/__init__.py"])
def test_hostile_wheels_get_no_report(tmp_path: Path, linker: Linker, name: str) -> None:
    draft = sound(linker)
    draft.files[name] = b"evil"
    with pytest.raises(FormatError) as caught:
        verify_wheel(draft.write(tmp_path))
    assert caught.value.exit_code == 11


def test_other_files_get_no_report(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(NONE)
    with pytest.raises(FormatError, match="not a wheel"):
        verify_wheel(tmp_path / "a.whl")
    for path in (tmp_path, tmp_path / "nothing.whl"):
        with pytest.raises(UsageError, match="cannot read this file"):
            verify_wheel(path)


def test_the_schema_knows_every_check(tmp_path: Path, linker: Linker) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    checks: dict[str, Any] = SCHEMA["$defs"]["check"]["properties"]["name"]
    report = verify_wheel(sound(linker).write(tmp_path))
    always = [check.name for check in report.checks]
    assert checks["enum"] == [*always, "signature", "import", "gpu"], "the last where asked for"
    assert all(f"{name}:" in checks["description"] for name in checks["enum"])
