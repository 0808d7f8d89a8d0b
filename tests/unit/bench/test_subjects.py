"""The pins of bench/subjects.toml, and how a pinned file gets into the cache."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

from bench import subjects as module
from bench.subjects import fetch_subject, subjects
from fatwheel.errors import HashMismatchError
from fatwheel.events import silent

CONTENT = b"not a real sdist, and nobody looks"


@pytest.mark.parametrize("name", subjects())
def test_a_pin_agrees_with_its_file_name(name: str) -> None:
    package = subjects()[name]
    if package.filename.endswith(".whl"):
        project, version, _, _ = parse_wheel_filename(package.filename)
    else:
        project, version = parse_sdist_filename(package.filename)
    assert (project, str(version)) == (canonicalize_name(package.name), package.version)
    assert re.fullmatch("[0-9a-f]{64}", package.sha256)
    assert package.size > 0
    assert package.role == "subject"


def test_what_tests_need_is_there_for_both_systems() -> None:
    files = {name: package.filename for name, package in subjects().items()}
    for name, filename in files.items():
        if name.endswith("-linux"):
            assert "manylinux" in filename
        elif filename.endswith(".whl"):
            assert filename.endswith("-win_amd64.whl" if "-" in name else "-any.whl")
    systems = (name.rpartition("-")[0] for name in files if not name.startswith("python-"))
    both = set(filter(None, systems))
    compilers = {"crt", "cudart", "cuobjdump", "nvcc", "nvvm"}  # for Windows; Linux has its own
    keeping_code_among_data = {"cufft", "mathdx"}  # the smallest for each system
    small = {"jax", "nvjpeg", "nvjpeg2k", "nvtiff", "torchaudio", "torchvision"}
    assert both == {"xformers", "ninja", *compilers, *keeping_code_among_data, *small}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip is configured to look in; the pins name one sdist, the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    pins = tmp_path / "subjects.toml"
    digest = hashlib.sha256(CONTENT).hexdigest()
    pins.write_text(
        "[thing]\nname = 'a-thing'\nversion = '1.0'\nfile = 'a_thing-1.0.tar.gz'\n"
        f"size = {len(CONTENT)}\nsha256 = '{digest}'\n"
    )
    monkeypatch.setattr(module, "FILE", pins)
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_an_sdist_is_found_where_pip_is_told_to_look(index: Path, tmp_path: Path) -> None:
    (index / "a_thing-1.0.tar.gz").write_bytes(CONTENT)
    path = fetch_subject("thing", silent)
    assert path.name == "a_thing-1.0.tar.gz"
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cache")


def test_a_file_with_other_bytes_is_refused(index: Path) -> None:
    (index / "a_thing-1.0.tar.gz").write_bytes(CONTENT.upper())
    with pytest.raises(HashMismatchError, match="does not match its pin"):
        fetch_subject("thing", silent)


def test_an_unknown_name_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        fetch_subject("nothing", silent)
