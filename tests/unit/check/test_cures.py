"""Commands are what a shell reads back; what strangers say does not get into them."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.check import cures

from ...helpers.environments import LINUX, WINDOWS


def test_a_command_for_the_environment_that_was_checked() -> None:
    line = cures.install(LINUX, "torch==2.11.0")
    assert line == "/nowhere/venv/bin/python -m pip install torch==2.11.0"


def test_without_pip_it_is_uv() -> None:
    """As environments that uv makes are."""
    line = cures.reinstall(replace(LINUX, pip=False), "Flash_Attn", "2.8.3+cu130torch2.11")
    assert line == (
        "uv pip install --python /nowhere/venv/bin/python --reinstall --no-deps flash-attn==2.8.3"
    )


def test_a_shell_reads_back_the_words() -> None:
    odd = replace(LINUX, executable=Path("/a folder/it's/bin/python"))
    url = "https://host/a%2Bb.whl?x=1&y=2#sha256=0"
    line = cures.install(odd, "torch>=2.5,<2.6", url)
    words = [str(odd.executable), "-m", "pip", "install", "torch>=2.5,<2.6", url]
    assert shlex.split(line) == words


def test_for_windows_words_are_quoted_as_both_its_shells_read_them() -> None:
    line = cures.install(WINDOWS, "torch>=2.5", "numpy")
    assert line == r'C:\venv\Scripts\python.exe -m pip install "torch>=2.5" numpy'
    spaced = replace(WINDOWS, executable=Path(r"C:\my venv\python.exe"))
    assert cures.install(spaced, "numpy") == r'& "C:\my venv\python.exe" -m pip install numpy'


@pytest.mark.parametrize(
    "text", ["", "-r", "--index-url", "a b", "a;b", "a$(b)", "a`b`", "a\nb", "é", "a" * 200, "a-"]
)
def test_what_is_no_name(text: str) -> None:
    assert not cures.is_name(text)


@pytest.mark.parametrize("text", ["", "1 2", "1;2", "$(x)", "1\n2", "-1", "1" * 100, "1.*.*"])
def test_what_is_no_version(text: str) -> None:
    assert not cures.is_version(text)


@pytest.mark.parametrize(
    "text",
    ["file:///etc/passwd", "https://", "https://a b", 'https://a"b', "https://a`b", "https://a$b",
     "https://a'b", "https://a\\b", "javascript:x", "https://a|b", "https://a\nb", "https://a<b"],
)  # fmt: skip
def test_what_is_no_url(text: str) -> None:
    assert not cures.is_url(text)
