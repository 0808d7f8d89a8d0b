"""The shipped parts, compared with what the user's own package index lists."""

from __future__ import annotations

from pathlib import Path

from fatwheel.config.parts import Parts
from fatwheel.events import silent
from fatwheel.pins.session import Session, Work
from fatwheel.toolchain.index import Index
from fatwheel.toolchain.pipconfig import RefusedError, read_pip_config

from ..conftest import missing

FOLDER = Path(__file__).resolve().parents[2] / "toolchains"
# Two dozen listings, of packages that change often and of some that do not.
NAMES = ("nvidia-cuda-", "nvidia-nvvm", "numpy", "ninja", "setuptools", "triton", "cuda-bindings")


def test_pinned_packages_are_as_the_index_lists_them(tmp_path: Path) -> None:
    index = Index(read_pip_config())
    try:
        session = Session(index, tmp_path, tmp_path, silent, write=False)
        try:
            session.listings.own("packaging")
        except RefusedError as error:
            missing(f"no package index: {error}")
        work = Work(session, Parts(FOLDER))
        for name in work.parts.names("packages"):
            if name.startswith(NAMES):
                work.pins.check(name)
    finally:
        index.close()
    findings = [finding for each in work.pins.findings.values() for finding in each]
    wrong = [f"{one.name}: {one.state}: {one.note}" for one in findings if one.state != "right"]
    assert not wrong, "pins differ from what is published"
    assert len(findings) > 100
