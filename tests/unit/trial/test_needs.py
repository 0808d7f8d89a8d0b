"""What METADATA wants: extras left out, versions held against what is installed."""

from __future__ import annotations

import pytest

from fatwheel.config.pinned import Package
from fatwheel.errors import FormatError
from fatwheel.trial.subject import unmet
from fatwheel.wheels.metadata import named, requirements_of

METADATA = b"""\
Metadata-Version: 2.1
Name: demo
Version: 1.0
Requires-Dist: torch==2.1.1
Requires-Dist: Ein_Ops >=0.8
Requires-Dist: tomli ; python_version < "3.11"
Requires-Dist: pytest ; extra == "test"

Requires-Dist: this is text
"""


def package(name: str, version: str) -> Package:
    return Package(name, version, "", 1, "00" * 32, "runtime")


def test_extras_and_other_pythons_are_left_out() -> None:
    assert [one.name for one in requirements_of(METADATA, "3.11")] == ["torch", "Ein_Ops"]
    assert [one.name for one in requirements_of(METADATA, "3.10")] == ["torch", "Ein_Ops", "tomli"]


def test_names_are_compared_as_installers_do() -> None:
    [found] = named(requirements_of(METADATA, "3.11"), "ein-ops")
    assert str(found.specifier) == ">=0.8"


def test_what_is_not_there_or_of_another_version() -> None:
    wanted = requirements_of(METADATA, "3.11")
    assert unmet(wanted, [package("torch", "2.1.1+cu121"), package("ein-ops", "0.8.2")]) == ()
    assert unmet(wanted, [package("torch", "2.2.0")]) == ("torch==2.1.1", "Ein_Ops>=0.8")


def test_what_is_no_requirement() -> None:
    with pytest.raises(FormatError, match="'torch ==' is not a valid requirement"):
        requirements_of(b"Requires-Dist: torch ==\n\n", "3.11")
    with pytest.raises(FormatError, match="1001 requirements are too many"):
        requirements_of(b"Requires-Dist: a\n" * 1001, "3.11")
