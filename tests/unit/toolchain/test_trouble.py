"""What is told of a failure, and what is not."""

from __future__ import annotations

import pytest

from fatwheel.toolchain.pipconfig import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:hunter2@host/a", "https://****@host/a"),
        ("at http://token@host:8080/a, not https://other/", "at http://****@host:8080/a, not"),
        ("https://user:p@ss@host/", "https://****@host/"),
        ("https://host/a@b", "https://host/a@b"),
        ("no connection", "no connection"),
    ],
)
def test_users_and_passwords_are_not_shown(text: str, shown: str) -> None:
    assert redacted(text).startswith(shown)
    assert "hunter2" not in redacted(text)
