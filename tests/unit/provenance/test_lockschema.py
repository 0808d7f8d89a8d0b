"""Every value of a lock has a grammar: nothing hostile comes in by any of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fatwheel.errors import FormatError
from fatwheel.provenance.lock import MOST, LockFile, lock_bytes, read_lock

from ...helpers.grammars import without_grammar
from ...helpers.somelocks import LINUX, full_lock, some_lock

Place = tuple[str | int, ...]


PACKAGED, BESIDE = (json.loads(lock_bytes(full_lock(folder))) for folder in (False, True))


def _leaves(part: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value that is no object and no list, with its place."""
    if isinstance(part, dict):
        for name, value in part.items():
            yield from _leaves(value, (*place, name))
    elif isinstance(part, list):
        for index, value in enumerate(part):
            yield from _leaves(value, (*place, index))
    else:
        yield place, part


def _changed(content: Any, place: Place, change: Callable[[Any], Any]) -> bytes:
    content = part = json.loads(json.dumps(content))
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = change(part[place[-1]])
    return _bytes(content)


def _bytes(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


FOLDER = ("recipe", "source", "folder")
LEAVES = [
    *((PACKAGED, place, value) for place, value in _leaves(PACKAGED)),
    *((BESIDE, place, value) for place, value in _leaves(BESIDE) if place == FOLDER),
]
TEXTS = [(content, place) for content, place, value in LEAVES if isinstance(value, str)]
NUMBERS = [(content, place) for content, place, value in LEAVES if isinstance(value, int)]
PLANTS = {
    "a line end": "\n", "a line": "\nADD http://nowhere.invalid/x /", "a return": "\r",
    "NUL": "\0", "a quotation mark": '"', "an apostrophe": "'", "a command": "$(x)",
    "a command in backticks": "`x`", "a variable of cmd": "%PATH%", "a backslash": "\\",
    "another command": ";x", "a pipe": "|x", "the last character of text": "\u202e",
    "a way out": "/../../x", "length": "a" * 100_000,
}  # fmt: skip
# A variable's value is any text: it is never a word of a command. So is only bounded.
FREE = ("recipe", "environment", "FORCE_CUDA")


def test_the_lock_of_these_tests_is_a_good_one() -> None:
    for content in (PACKAGED, BESIDE):
        lock = read_lock(_bytes(content), "W", Path("kernels"))
        assert lock_bytes(lock) == _bytes(content)
        empty = [place for place, value in _leaves(content) if not value]
        assert set(empty) <= {("recipe", "source", "package"), ("recipe", "source", "folder")}


def test_every_field_has_a_grammar() -> None:
    assert without_grammar(LockFile) == []


def _refused(data: bytes) -> str:
    """What is said of a lock; that it was taken, if it was."""
    try:
        read_lock(data, "W", Path("kernels"))
    except FormatError as error:
        return str(error)
    return "it was taken"


@pytest.mark.parametrize("name", PLANTS)
def test_nothing_else_may_stand_in_any_text(name: str) -> None:
    plant = PLANTS[name]
    for content, place in TEXTS:
        if place == FREE and name not in ("NUL", "length"):
            continue
        for change in (lambda value: value + plant, lambda value: plant + value):
            said = _refused(_changed(content, place, change))
            assert ".".join(map(str, place)) in said, f"{name} in {place}: {said}"
            assert len(said) < 3000


@pytest.mark.parametrize("number", [-1, 10**15, 10**40, True, 1.5])
def test_numbers_are_bounded(number: float) -> None:
    for content, place in NUMBERS:
        if place != ("schema",):
            said = _refused(_changed(content, place, lambda _: number))
            assert ".".join(map(str, place)) in said, said


def test_values_of_variables_are_any_text() -> None:
    value = "-O2 -DA=\"x y\" `$(id)` 'a'\n%PATH% ü"
    data = _changed(PACKAGED, FREE, lambda _: value)
    assert read_lock(data, "W", Path()).recipe.environment == {"FORCE_CUDA": value}


@pytest.mark.parametrize(
    "name",
    ["A=B", "A\0", "A\n", "", "PATH", "FATWHEEL_CACHE", "LD_PRELOAD", "PYTHONPATH", "Path",
     "PYTHONSTARTUP", "BASH_ENV", "NVCC_PREPEND_FLAGS", "CC", "HOME", "a" * 300],
)  # fmt: skip
def test_variables_of_other_programs_are_refused(name: str) -> None:
    content = json.loads(json.dumps(PACKAGED))
    content["recipe"]["environment"] = {name: "1"}
    with pytest.raises(FormatError, match=r"recipe\.environment"):
        read_lock(_bytes(content), "W", Path())


@pytest.mark.parametrize(
    "name",
    ["CMAKE_ARGS", "NVCC_THREADS", "MAMBA_FORCE_BUILD", "PYTHON_TARGET", "GIT_TAG", "NVCC_FLAGS"],
)  # fmt: skip
def test_variables_of_projects_are_not(name: str) -> None:
    content = json.loads(json.dumps(PACKAGED))
    content["recipe"]["environment"] = {name: "1"}
    assert read_lock(_bytes(content), "W", Path()).recipe.environment == {name: "1"}


def test_lists_are_bounded() -> None:
    lists = (
        "recipe.imports", "recipe.runtime", "recipe.stub_commands", "toolchain.archs",
        "toolchain.containers.bases", "toolchain.cuda_files", "toolchain.interpreters",
        "toolchain.msvc.payloads", "toolchain.packages", "toolchain.torch_packages",
    )  # fmt: skip
    for name in lists:
        place = tuple(name.split("."))
        assert name in _refused(_changed(PACKAGED, place, lambda items: items[:1] * 1001))


_ARCHS = ("toolchain", "archs")
_SIZE = f"{MOST} are the most"
_START = b'{"schema": 1, "fatwheel": "1", "a": '
TOO_MUCH = {
    "a million archs": (lambda: _changed(PACKAGED, _ARCHS, lambda _: ["80"] * 10**6), _SIZE),
    "fewer archs": (
        lambda: _changed(PACKAGED, _ARCHS, lambda _: ["8"] * 40_000), "more than 20000 values",
    ),
    "a number of 5,000 digits": (
        lambda: _bytes(PACKAGED).replace(b"1700000000", b"1" * 5000), "a number has 5000 digits",
    ),
    "10 MB of text": (lambda: _changed(PACKAGED, ("torch",), lambda _: "a" * 10**7), _SIZE),
    "depth": (lambda: _START + b"[" * 100_000, "more than 20000 values"),
    "less depth": (lambda: _START + b"[" * 9_000 + b"]" * 9_000 + b"}", "recursion"),
    "unpaired surrogate": (
        lambda: _bytes(PACKAGED).replace(b'"demo.ops"', b'"\\ud800"'), "unpaired surrogate",
    ),
    "a thing twice": (
        lambda: _bytes(PACKAGED).replace(b'"torch": ', b'"torch": "1",\n "torch": '),
        "appears twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_would_take_memory_or_time(name: str) -> None:
    make, words = TOO_MUCH[name]
    said = _refused(make())
    assert words in said
    assert "damaged" in said


def test_files_that_are_not_what_is_said_of_them() -> None:
    lock = some_lock()
    first, *rest = lock.toolchain.packages
    for other, words in (
        (replace(first, version="9.9"), f"{first.filename} is not"),
        (replace(first, name="other"), f"{first.filename} is not other"),
        (replace(rest[0], sha256="0" * 64), "two files have this name"),
    ):
        packages = (*lock.toolchain.packages, other)
        changed = replace(lock, toolchain=replace(lock.toolchain, packages=packages))
        assert words in _refused(lock_bytes(changed))
    assert lock.toolchain.name == LINUX
