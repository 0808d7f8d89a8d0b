"""Sources from a recipe's folder or sdist; whatever is wrong with them is said by name."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import random
import tarfile
from pathlib import Path

import pytest

from fatwheel.errors import FormatError, UpstreamError, UsageError
from fatwheel.events import silent
from fatwheel.model import Package, Recipe, Source
from fatwheel.source import epoch_of, unpack


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(
        name="demo", project="demo", version="1.0", source=Source(folder=tmp_path / "src"),
        archs=("80",), environment={}, imports=("demo",), stub_commands=(), memory=1, seconds=1.0,
        costs=(), epoch=86400 * 3652, folder=tmp_path, digest="0" * 64,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


def sdist(recipe: Recipe, downloads: Path, data: bytes) -> Recipe:
    """The recipe with an sdist of these bytes, which was fetched already."""
    sha256 = hashlib.sha256(data).hexdigest()
    package = Package("demo", "1.0", "demo-1.0.tar.gz", len(data), sha256, "source")
    (downloads / sha256).mkdir(parents=True)
    (downloads / sha256 / package.filename).write_bytes(data)
    return dataclasses.replace(recipe, source=Source(package=package))


def archive(**files: str) -> bytes:
    """A .tar.gz; `__` in a name stands for `/`, and a value that begins with `->` for a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("_py", ".py"))
            if text.startswith("->"):
                member.type, member.linkname = tarfile.SYMTYPE, text[2:]
                tar.addfile(member)
            else:
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def test_an_sdist_becomes_a_folder_named_after_project_and_version(
    recipe: Recipe, tmp_path: Path
) -> None:
    recipe = sdist(recipe, tmp_path / "dl", archive(odd__setup_py="print()"))
    project = unpack(recipe, tmp_path / "dl", tmp_path / "work", silent)
    assert project.root == tmp_path / "work" / "demo-1.0"
    assert (project.root / "setup.py").read_text() == "print()"
    assert project.backend == "setuptools.build_meta:__legacy__"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"not an archive", "not a readable sdist"),
        (archive(a__setup_py="x" * 5000)[:60], "not a readable sdist"),
        (archive(a__setup_py="1", b__setup_py="2"), "exactly one folder, this one holds a, b"),
        (archive(setup_py="1"), "exactly one folder"),
        (archive(a__link="->/etc/passwd"), "could leave its folder: 'a/link'"),
        (archive(a__x="->../../x"), "could leave its folder: 'a/x'"),
    ],
    ids=["no archive", "cut off", "two folders", "no folder", "link", "link upwards"],
)
def test_a_bad_sdist_is_refused(recipe: Recipe, tmp_path: Path, data: bytes, says: str) -> None:
    recipe = sdist(recipe, tmp_path / "dl", data)
    with pytest.raises(FormatError, match=says) as caught:
        unpack(recipe, tmp_path / "dl", tmp_path / "work", silent)
    assert caught.value.where == "demo-1.0.tar.gz"


def test_a_damaged_stream_of_any_kind_is_no_readable_sdist(recipe: Recipe, tmp_path: Path) -> None:
    text = "".join(random.Random(1).choices("abcdefgh", k=300_000))  # many deflate blocks
    whole = archive(a__x=text, a__setup_py=text)
    for place in [*range(10, 200, 10), *range(200, len(whole), 4999)]:
        data = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        broken = sdist(recipe, tmp_path / "dl", data)
        work = tmp_path / str(place)
        try:
            unpack(broken, tmp_path / "dl", work, silent)
        except (FormatError, UpstreamError):
            continue  # anything else is a traceback for the user


def test_a_source_that_nothing_builds(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.cu").touch()
    with pytest.raises(UpstreamError, match="neither pyproject"):
        unpack(recipe, tmp_path / "dl", tmp_path / "work", silent)


def test_an_unreadable_pyproject_is_upstreams_mistake(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "pyproject.toml").write_text("[build-system\n")
    with pytest.raises(UpstreamError) as caught:
        unpack(recipe, tmp_path / "dl", tmp_path / "work", silent)
    assert caught.value.where == "demo-1.0/pyproject.toml"


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 86400 * 3652), ("0", 0), ("1700000000", 1700000000)]
)
def test_the_epoch_is_the_variables_or_the_recipes(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, text: str, seconds: int
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    assert epoch_of(recipe) == seconds


@pytest.mark.parametrize("text", ["abc", "-5", "1e9", "4354819200", "99999999999999", " 5", "٣"])
def test_an_epoch_that_no_wheel_can_hold_is_refused(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(UsageError, match="number of seconds since 1970") as caught:
        epoch_of(recipe)
    assert caught.value.where == "SOURCE_DATE_EPOCH"
