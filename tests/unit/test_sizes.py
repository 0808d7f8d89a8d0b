"""sizes: what people write, in bytes."""

from __future__ import annotations

import pytest

from fatwheel.text import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("6GiB", 6442450944),
        ("1.5 GiB", 1610612736),
        ("800MiB", 838860800),
        ("64KiB", 65536),
        ("6GB", 6000000000),
        ("2kB", 2000),
        ("2KB", 2000),
        ("1TiB", 1099511627776),
        (" 3TB ", 3000000000000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "6", "GiB", "6 gib", "-6GiB", "6,5GiB", "6GiBs", "1e9B", "nanB", "0GiB", "0.1B", "6G",
     "9" * 5000 + "B", "६GiB"],
)  # fmt: skip
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="valid: a number and a unit"):
        parse_size(text)
