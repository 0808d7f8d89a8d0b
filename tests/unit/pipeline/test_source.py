"""Sources from a recipe's folder or sdist; whatever is wrong with them is said by name."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from fatwheel.config.pinned import Sdist
from fatwheel.config.recipe import Recipe, SourcePin
from fatwheel.errors import FormatError, UpstreamError, UsageError
from fatwheel.events import silent
from fatwheel.pipeline.source import epoch_of, unpack


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(
        name="demo", project="demo", version="1.0", source=SourcePin(folder=str(tmp_path / "src")),
        archs=("80",), environment={}, imports=("demo",), stub_commands=(), memory=1, seconds=1.0,
        costs=(), epoch=86400 * 3652, folder=tmp_path, digest="0" * 64,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


def sdist(recipe: Recipe, cache: Path, data: bytes) -> Recipe:
    """The recipe with an sdist of these bytes, which was fetched already."""
    sha256 = hashlib.sha256(data).hexdigest()
    package = Sdist("demo", "1.0", "demo-1.0.tar.gz", len(data), sha256, "source")
    folder = cache / "downloads" / sha256
    folder.mkdir(parents=True)
    (folder / package.filename).write_bytes(data)
    return dataclasses.replace(recipe, source=SourcePin(package=package))


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
        (archive(a__link="->/etc/passwd"), "could escape its folder: 'a/link'"),
        (archive(a__x="->../../x"), "could escape its folder: 'a/x'"),
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
    with pytest.raises(UpstreamError, match="no pyproject"):
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


# -- hostile archives ------------------------------------------------------------------------------


def member(name: str, text: str = "", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(name)
    found.size = len(text)
    for field, value in fields.items():
        setattr(found, field, value)
    return found, text.encode()


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data.ljust(info.size, b"\0")[: info.size]))
    return out.getvalue()


HOSTILE = {
    "absolute": [member("/etc/x", "1")],
    "upwards": [member("a/../../x", "1")],
    "device": [member("a/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "fifo": [member("a/fifo", type=tarfile.FIFOTYPE)],
    "hard link": [member("a/x", "1"), member("a/y", type=tarfile.LNKTYPE, linkname="a/x")],
    "file below a file": [member("a/x", "1"), member("a/x/y", "1")],
    "folder over a file": [member("a/x", "1"), member("a/x", type=tarfile.DIRTYPE)],
    "file over a folder": [member("a/x", type=tarfile.DIRTYPE), member("a/x", "1")],
    "no name": [member("", "1")],
    "a dot": [member(".", "1")],
    "a name of zeros": [member("a/x", "1", pax_headers={"path": "a/\0x"})],
    "far future": [member("a/x", "1", pax_headers={"mtime": "1e300"})],
    "negative time": [member("a/x", "1", pax_headers={"mtime": "-1e300"})],
    "no number": [member("a/x", "1", pax_headers={"mtime": "nan"})],
    "a long name": [member("a/" + "x" * 5000, "1")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_sdist_is_refused_and_writes_nothing_outside(
    recipe: Recipe, tmp_path: Path, name: str
) -> None:
    recipe = sdist(recipe, tmp_path / "dl", tar(*HOSTILE[name]))
    work = tmp_path / "deep" / "er" / "work"
    with pytest.raises((FormatError, UpstreamError)):
        unpack(recipe, tmp_path / "dl", work, silent)
    assert sorted(path.name for path in (tmp_path / "deep" / "er").iterdir()) == ["work"]
    assert {path.name for path in work.iterdir()} <= {"unpacked", "demo-1.0"}


def test_a_bomb_is_refused_by_what_it_claims(recipe: Recipe, tmp_path: Path) -> None:
    info, _ = member("a/x")
    info.size = 5 << 30
    header = info.tobuf(tarfile.PAX_FORMAT)
    recipe = sdist(recipe, tmp_path / "dl", gzip.compress(header + bytes(2048)))
    with pytest.raises(FormatError, match="more than 4 GiB"):
        unpack(recipe, tmp_path / "dl", tmp_path / "work", silent)


def test_an_sdist_cannot_set_permissions(recipe: Recipe, tmp_path: Path) -> None:
    data = tar(
        member("a/setup.py", "1", mode=0o104777),
        member("a/secret", "1", mode=0o000),
        member("a/tool", "1", mode=0o755),
    )
    project = unpack(sdist(recipe, tmp_path / "dl", data), tmp_path / "dl", tmp_path / "w", silent)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in project.root.iterdir()}
    assert modes == {"setup.py": 0o755, "secret": 0o644, "tool": 0o755}


def test_what_is_unpacked_belongs_to_whoever_unpacks(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.getuid()
    monkeypatch.delattr(os, "getuid")  # as on Windows
    data = tar(member("a/setup.py", "1", uid=1234, gid=1234, uname="daemon", gname="daemon"))
    project = unpack(sdist(recipe, tmp_path / "dl", data), tmp_path / "dl", tmp_path / "w", silent)
    assert (project.root / "setup.py").stat().st_uid == mine


def test_a_zip_is_no_sdist_here(recipe: Recipe, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("demo-1.0/setup.py", "")
    with pytest.raises(FormatError, match="not a readable sdist"):
        unpack(sdist(recipe, tmp_path / "dl", out.getvalue()), tmp_path / "dl", tmp_path, silent)


# -- what makes a project --------------------------------------------------------------------------


def test_a_folder_beside_the_recipe_is_copied_without_leftovers(
    recipe: Recipe, tmp_path: Path
) -> None:
    for name in ("setup.py", "csrc/a.cu", "build/old.o", "p.egg-info/PKG-INFO"):
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "src" / "setup.py").chmod(0o6777)
    project = unpack(recipe, tmp_path / "dl", tmp_path / "work", silent)
    found = [path.relative_to(project.root).as_posix() for path in project.root.rglob("*.*")]
    assert sorted(found) == ["csrc/a.cu", "setup.py"]
    assert (project.root / "setup.py").stat().st_mode & 0o7777 == 0o755
    (project.root / "setup.py").write_text("changed by the build")
    assert (tmp_path / "src" / "setup.py").read_text() == "setup.py"


def test_pyproject_says_how_to_build(recipe: Recipe, tmp_path: Path) -> None:
    recipe = dataclasses.replace(recipe, environment={"B": "2", "A": "1"}, stub_commands=("git",))
    system = '[build-system]\nbuild-backend = "own:hooks"\nbackend-path = ["tools", "."]\n'
    data = tar(member("x/pyproject.toml", system))
    project = unpack(sdist(recipe, tmp_path / "dl", data), tmp_path / "dl", tmp_path / "w", silent)
    assert (project.backend, project.backend_paths) == ("own:hooks", ("tools", "."))
    assert project.variables == (("A", "1"), ("B", "2"))
    assert project.stub_commands == ("git",)
    assert project.epoch == recipe.epoch


BAD = {
    "a number": ("build-backend = 1", "build-backend is 1"),
    "a list": ('build-backend = ["a"]', "build-backend is ['a']"),
    "an option": ('build-backend = "-m"', "build-backend is '-m'"),
    "a path": ('build-backend = "../x"', "build-backend is '../x'"),
    "a NUL": (r'build-backend = "a\u0000"', r"build-backend is 'a\x00'"),
    "a line end": (r'build-backend = "a\nb"', r"build-backend is 'a\nb'"),
    "a page": (f'build-backend = "{"x" * 9999}"', "build-backend is 'xxx"),
    "one path": ('build-backend = "a"\nbackend-path = "."', "backend-path is '.'"),
    "numbers": ('build-backend = "a"\nbackend-path = [1]', "backend-path is [1]"),
    "upwards": ('build-backend = "a"\nbackend-path = ["a/../.."]', "backend-path is ['a/../..']"),
    "absolute": ('build-backend = "a"\nbackend-path = ["/tmp"]', "backend-path is ['/tmp']"),
    "two in one": (
        f'build-backend = "a"\nbackend-path = ["a{os.pathsep}b"]',
        f"backend-path is ['a{os.pathsep}b']",
    ),
    "deep": ("requires = " + "[" * 50_000, "nested too deeply"),
    "digits": ("requires = " + "9" * 5000, "too many digits"),
    "hex": ("build-backend = [0x" + "f" * 5000 + "]", "a number with too many digits"),
    "large": ("#" * (2 << 20), "more than 1048576 bytes"),
}


@pytest.mark.parametrize("kind", BAD)
def test_pyproject_that_says_what_it_may_not(recipe: Recipe, tmp_path: Path, kind: str) -> None:
    text, says = BAD[kind]
    data = tar(member("x/pyproject.toml", f"[build-system]\n{text}\n"))
    recipe = sdist(recipe, tmp_path / "dl", data)
    with pytest.raises(UpstreamError) as caught:
        unpack(recipe, tmp_path / "dl", tmp_path / "w", silent)
    assert says in caught.value.what
    assert len(caught.value.what) < 300
    assert caught.value.where == "demo-1.0/pyproject.toml"


def test_build_system_must_be_a_table(recipe: Recipe, tmp_path: Path) -> None:
    recipe = sdist(recipe, tmp_path / "dl", tar(member("x/pyproject.toml", "build-system = 1")))
    with pytest.raises(UpstreamError, match="build-system is not a table"):
        unpack(recipe, tmp_path / "dl", tmp_path / "w", silent)


@pytest.mark.parametrize("text", ["", "[tool.x]\n", '[build-system]\nrequires = ["setuptools"]\n'])
def test_pyproject_may_leave_the_back_end_to_setuptools(
    recipe: Recipe, tmp_path: Path, text: str
) -> None:
    data = tar(member("x/pyproject.toml", text), member("x/setup.py"))
    project = unpack(sdist(recipe, tmp_path / "dl", data), tmp_path / "dl", tmp_path / "w", silent)
    assert project.backend == "setuptools.build_meta:__legacy__"


def test_a_project_may_lie_in_a_subdirectory(recipe: Recipe, tmp_path: Path) -> None:
    recipe = dataclasses.replace(recipe, subdirectory="python")
    data = tar(member("x/README"), member("x/python/setup.py"))
    project = unpack(sdist(recipe, tmp_path / "dl", data), tmp_path / "dl", tmp_path / "w", silent)
    assert project.root == tmp_path / "w" / "demo-1.0" / "python"
    assert project.top == tmp_path / "w" / "demo-1.0"
    assert project.at(Path("/other/demo-1.0/python")).top == Path("/other/demo-1.0")
