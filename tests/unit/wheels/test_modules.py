"""Which modules a wheel offers, from the names of its files."""

from __future__ import annotations

import pytest

from fatwheel.wheels.modules import top_modules


@pytest.mark.parametrize(
    ("files", "listed", "expected"),
    [
        (["b/__init__.py", "a/__init__.py", "a/x/__init__.py"], "", ("a", "b")),
        (["a/__init__.py", "_C.cpython-311-x86_64-linux-gnu.so"], "", ("a", "_C")),
        (["one.py", "two.abi3.so", "three.so"], "", ("one", "three", "two")),
        (["a/b.py", "a-1.dist-info/METADATA", "a.libs/libx-1.so", "b.txt"], "", ()),
        (["a/__init__.py", "a.py"], "", ("a",)),
        (["a/__init__.py", "tests/__init__.py"], "", ("a",)),
        (["a/__init__.py", "b/__init__.py"], "a\n", ("a",)),
        (["a/__init__.py"], "other\n", ("a",)),
        (["a.cp311-win_amd64.pyd", "b.pyd"], "", ("a", "b")),
    ],
)
def test_top_modules(files: list[str], listed: str, expected: tuple[str, ...]) -> None:
    assert top_modules(files, listed) == expected
