"""load: whatever a file holds, the answer is a Recipe (Toolchain) or a ConfigError."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fatwheel.config.load import load_recipe
from fatwheel.config.mistakes import Key, TomlLines
from fatwheel.config.recipe import Recipe
from fatwheel.config.toolchain import Toolchain
from fatwheel.config.toolchains import load_toolchain
from fatwheel.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
RECIPES = [
    file.read_bytes() for file in sorted((ROOT / "kernels").glob("*/recipe.toml"))
] + [
    b'project = "demo"\nversion = "1"\narchs = ["80"]\nimports = ["demo"]\n'
    b'source = { folder = "src" }\ncost = [ { units = "*" }, ]\nepoch = 2024-01-01 00:00:00Z\n',
]  # fmt: skip
TOOLCHAIN = b"""\
name = "demo"
platform = "linux-x86_64"
cuda = "13.0"
nvcc = "13.0.88"
archs = ["80"]
gcc = [9, 15]
packages = []
[[builds]]
python = "3.11"
torch = "2.11.0"
[[builds.packages]]
name = "torch"
version = "2.11.0"
file = "torch-2.11.0-cp311-cp311-linux_x86_64.whl"
size = 6
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
role = "runtime"
"""

IMAGES = b"""\
name = "demo"
platform = "win-amd64"
cuda = "12.3"
nvcc = "12.3.107"
archs = ["80"]
packages = []
[msvc]
visual_studio = "17.8.2"
cl = "19.38.33130"
toolset = "14.38"
license = "https://host/terms"
[msvc.channel]
url = "https://host/a.chman"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
[msvc.catalogue]
url = "https://host/a.vsman"
sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
[[msvc.payloads]]
name = "Microsoft.VC.CRT"
version = "14.38.1"
url = "https://host/a.vsix"
[containers]
os = "windows"
os_build = 20348
[[containers.bases]]
reference = "mcr.microsoft.com/windows/servercore:ltsc2022"
pythons = ["3.12"]
[[containers.bases]]
reference = "other"
[[cuda_files]]
name = "cuda_nvcc"
version = "12.3.107"
url = "https://host/cuda_nvcc-12.3.107-archive.zip"
[[interpreters]]
python = "3.11"
version = "3.11.9"
url = "https://host/python-3.11.9-amd64.exe"
[[builds]]
python = "3.11"
torch = "2.1.1"
[[builds.packages]]
name = "torch"
version = "2.1.1+cu121"
file = "torch-2.1.1+cu121-cp311-cp311-win_amd64.whl"
url = "https://host/torch-2.1.1%2Bcu121-cp311-cp311-win_amd64.whl"
role = "runtime"
"""

# Values and pieces of syntax that a file may have in a wrong place.
PIECES = [
    b'""', b'"x"', b"0", b"-1", b"3.5", b"nan", b"-inf", b"true", b"[]", b"{}", b"[[]]", b"{a=1}",
    b"1979-05-27", b"07:32:00", b"1979-05-27T07:32:00", b"9" * 400, b'"\\u0000"', b'"\xc3\xa9"',
    b"'''", b'"""', b"\n", b"\r\n", b"\xff", b"[", b"]", b"[[", b"=", b".", b"#", b"{", b"}",
    b"[source]\n", b"[[cost]]\n", b"[environment.x]\n", b"[[source]]\n", b"\xef\xbb\xbf", b"\\",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, texts: list[bytes]) -> bytes:
    """A right text after a few cuts, insertions and exchanges of values."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        kind = draw(st.sampled_from(["cut", "insert", "noise", "value", "move"]))
        if kind == "cut":
            text = text[:start] + text[start + draw(st.integers(1, 40)) :]
        elif kind == "insert":
            text = text[:start] + draw(st.sampled_from(PIECES)) + text[start:]
        elif kind == "noise":
            text = text[:start] + draw(st.binary(min_size=1, max_size=4)) + text[start:]
        elif kind == "value":
            lines = text.split(b"\n")
            line = draw(st.integers(0, len(lines) - 1))
            key = lines[line].split(b"=")[0]
            lines[line] = key + b"= " + draw(st.sampled_from(PIECES))
            text = b"\n".join(lines)
        else:
            lines = text.split(b"\n")
            lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(lines)))
            text = b"\n".join(lines)
    return text


@settings(max_examples=400, deadline=None)
@given(mutated(RECIPES))
@example(b"a = " + b"[" * 5000)
@example(b'source = { folder = "' + b"a" * 5000 + b'" }')
@example(b"epoch = " + b"9" * 5000)
def test_a_mutated_recipe(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recipe.toml")
        file.write_bytes(text)
        Path(folder, "src").mkdir()
        try:
            assert isinstance(load_recipe(file, Path(folder)), Recipe)
        except ConfigError as error:
            lines = text.count(b"\n") + 1
            for detail in error.details:
                number = detail.removeprefix(f"{file}:").split(":")[0]
                assert 1 <= int(number) <= lines, detail


@pytest.mark.parametrize("text", [TOOLCHAIN, IMAGES])
def test_the_toolchains_above_are_right(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "demo.toml").write_bytes(text)
        load_toolchain("demo", Path(folder))


@settings(max_examples=400, deadline=None)
@given(mutated([TOOLCHAIN, IMAGES]))
def test_a_mutated_toolchain(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "demo.toml").write_bytes(text)
        try:
            assert isinstance(load_toolchain("demo", Path(folder)), Toolchain)
        except ConfigError:
            return


def leaves(value: Any, key: Key = ()) -> Iterator[Key]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*key, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*key, index))
    else:
        yield key


@settings(max_examples=300, deadline=None)
@given(mutated([*RECIPES, TOOLCHAIN, IMAGES]))
def test_each_value_s_line_holds_its_key(data: bytes) -> None:
    """The oracle is the text itself: a key's name stands in the line that it is said to be in."""
    try:
        text = data.decode()
        values = tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    lines = text.split("\n")
    places = TomlLines(text)
    for key in leaves(values):
        name = key[-1]
        if isinstance(name, str) and name.isascii() and name.isidentifier():
            assert name in lines[places.line(key) - 1], f"{key} is not in line {places.line(key)}"
