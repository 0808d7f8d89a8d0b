"""Commits that are fetched from servers of this machine: what is written is what ids say."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fatwheel.config.recipe import Commit, Repository, Submodule
from fatwheel.errors import FatwheelError, FetchError, FormatError, HashMismatchError
from fatwheel.events import Event, Note, silent
from fatwheel.pipeline import git as module
from fatwheel.pipeline.git import write_repository
from fatwheel.toolchain.pipconfig import PipConfig
from tests.helpers.gitserver import Repositories, git, served

FILES = {"setup.py": "print()\n", "csrc/a.cu": "int a;\n", "tool": "#!/bin/sh\n"}


@pytest.fixture(autouse=True)
def _git(tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    tool("git")
    # pip would take as long to say what it is configured with as git takes to fetch.
    monkeypatch.setattr(module, "read_pip_config", PipConfig)


@pytest.fixture
def repositories(tmp_path: Path) -> Iterator[Repositories]:
    with served(tmp_path / "served") as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def pinned(commit: Commit, **submodules: Commit) -> Repository:
    """`a__b` is the path a/b."""
    inner = tuple(
        Submodule(path=path.replace("__", "/"), url=one.url, commit=one.commit, tree=one.tree)
        for path, one in submodules.items()
    )
    return Repository(url=commit.url, commit=commit.commit, tree=commit.tree, submodules=inner)


def files_of(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("smart", [True, False], ids=["smart", "dumb"])
def test_a_commit_is_fetched_once_and_written(tmp_path: Path, cache: Path, smart: bool) -> None:
    with served(tmp_path / "served", smart=smart) as repositories:
        old = repositories.commit("p.git", FILES)
        repositories.commit("p.git", {"setup.py": "newer"})
        repositories.commit("p.git", FILES, branch="other")  # a dumb server gives no lone commit
        write_repository(pinned(old), cache, tmp_path / "one", silent)
        asked = len(repositories.asked)
        write_repository(pinned(old), cache, tmp_path / "two", silent)
        assert len(repositories.asked) == asked > 0
    for root in (tmp_path / "one", tmp_path / "two"):
        assert files_of(root) == FILES
        modes = {name: (root / name).stat().st_mode & 0o777 for name in FILES}
        assert modes == {"setup.py": 0o644, "csrc/a.cu": 0o644, "tool": 0o755}
        assert {int(path.stat().st_mtime) for path in root.rglob("*.*") if path.is_file()} == {
            315619200
        }


def test_submodules_are_pinned_likewise(
    repositories: Repositories, tmp_path: Path, cache: Path
) -> None:
    inner = repositories.commit("inner.git", {"x.h": "inner\n"})
    middle = repositories.commit("middle.git", {"m.h": "m\n", "deep/er": f"=> {inner.commit}"})
    outer = repositories.commit(
        "p.git", {**FILES, "third/m": f"=> {middle.commit}", "tests/data": f"=> {inner.commit}"}
    )
    said: list[Event] = []
    pins = pinned(outer, third__m__deep__er=inner, third__m=middle)
    write_repository(pins, cache, tmp_path / "out", said.append)
    wanted = {**FILES, "third/m/m.h": "m\n", "third/m/deep/er/x.h": "inner\n"}
    assert files_of(tmp_path / "out") == wanted
    assert [one.text for one in said if isinstance(one, Note)] == [
        "submodules that the recipe does not pin are left out: tests/data"
    ]


def test_a_submodule_must_be_the_projects(
    repositories: Repositories, tmp_path: Path, cache: Path
) -> None:
    inner = repositories.commit("inner.git", {"x.h": "inner\n"})
    other = repositories.commit("inner.git", {"x.h": "other\n"})
    outer = repositories.commit("p.git", {**FILES, "m": f"=> {inner.commit}"})
    with pytest.raises(HashMismatchError, match=f"has commit {inner.commit} at m"):
        write_repository(pinned(outer, m=other), cache, tmp_path / "one", silent)
    with pytest.raises(HashMismatchError, match="has no submodule at csrc"):
        write_repository(pinned(outer, csrc=inner), cache, tmp_path / "two", silent)


def test_a_commit_that_is_not_there(
    repositories: Repositories, tmp_path: Path, cache: Path
) -> None:
    real = repositories.commit("p.git", FILES)
    absent = Repository(url=real.url, commit="12" * 20, tree=real.tree)
    with pytest.raises(FetchError, match=f"no commit {'12' * 20}") as caught:
        write_repository(absent, cache, tmp_path / "out", silent)
    assert caught.value.where == f"git+{real.url}@{'12' * 20}"
    nowhere = Repository(url=f"{repositories.url}/q.git", commit=real.commit, tree=real.tree)
    with pytest.raises(FetchError, match="could not be fetched") as caught:
        write_repository(nowhere, cache, tmp_path / "out2", silent)
    assert "not found" in " ".join(caught.value.details)
    assert list((cache / "git").glob("[!l]*")) == [], "nothing half-made is left"


def test_a_tree_that_differs(repositories: Repositories, tmp_path: Path, cache: Path) -> None:
    real = repositories.commit("p.git", FILES)
    wrong = Repository(url=real.url, commit=real.commit, tree="ab" * 20)
    with pytest.raises(HashMismatchError, match="has another tree") as caught:
        write_repository(wrong, cache, tmp_path / "out", silent)
    assert caught.value.details == (f"pinned: {'ab' * 20}", f"has:    {real.tree}")


def test_a_server_that_asks_for_a_password_gets_none(tmp_path: Path, cache: Path) -> None:
    from tests.helpers.webserver import Server, status

    with Server() as server:
        server.answers = {"/p.git/info/refs?service=git-upload-pack": status(401)}
        pin = Repository(url=f"{server.url}/p.git", commit="12" * 20, tree="ab" * 20)
        with pytest.raises(FetchError, match="could not be fetched"):
            write_repository(pin, cache, tmp_path / "out", silent)


def test_links_within_the_project_become_copies(
    repositories: Repositories, tmp_path: Path, cache: Path
) -> None:
    commit = repositories.commit(
        "p.git",
        {
            **FILES, "include": "-> csrc", "a/b.cu": "-> ../include/a.cu", "a/x.cu": "-> b.cu",
            "gone": "-> nowhere", "loop": "-> loop",
        },
    )  # fmt: skip
    write_repository(pinned(commit), cache, tmp_path / "out", silent)
    text = FILES["csrc/a.cu"]
    wanted = {**FILES, "include/a.cu": text, "a/b.cu": text, "a/x.cu": text}
    assert files_of(tmp_path / "out") == wanted
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../etc/passwd", "csrc/../../x", "a/../../../b"]
)
def test_a_link_out_of_the_project_is_refused(
    repositories: Repositories, tmp_path: Path, cache: Path, target: str
) -> None:
    commit = repositories.commit("p.git", {**FILES, "csrc/link": f"-> ../{target}"})
    if target.startswith("/"):
        commit = repositories.commit("p.git", {**FILES, "csrc/link": f"-> {target}"})
    with pytest.raises(FormatError, match="leads out of it: 'csrc/link'"):
        write_repository(pinned(commit), cache, tmp_path / "out", silent)


def test_links_in_a_folder_that_a_link_names_are_copied_too(
    repositories: Repositories, tmp_path: Path, cache: Path
) -> None:
    links = {"a": "-> d", "d/x": "-> ../setup.py", "z": "-> d"}  # before and after the folder
    commit = repositories.commit("p.git", {**FILES, **links})
    write_repository(pinned(commit), cache, tmp_path / "out", silent)
    assert {"a/x", "d/x", "z/x"} <= files_of(tmp_path / "out").keys()


def test_a_long_chain_of_links_leads_nowhere(
    repositories: Repositories, tmp_path: Path, cache: Path
) -> None:
    links = {f"l{number}": f"-> l{number + 1}" for number in range(1200)}
    commit = repositories.commit("p.git", {**FILES, **links, "l1200": "end"})
    write_repository(pinned(commit), cache, tmp_path / "out", silent)
    assert "l1170" in files_of(tmp_path / "out")
    assert "l0" not in files_of(tmp_path / "out")


def test_a_link_to_a_folder_around_it_is_refused(
    repositories: Repositories, tmp_path: Path, cache: Path
) -> None:
    commit = repositories.commit("p.git", {**FILES, "csrc/up": "-> .."})
    with pytest.raises(FormatError, match="that it is in: 'csrc/up'"):
        write_repository(pinned(commit), cache, tmp_path / "out", silent)


def raw_tree(repositories: Repositories, name: str, *entries: tuple[bytes, bytes, str]) -> Commit:
    """A commit of a tree that no git would make."""
    bare = repositories.folder / name
    data = b"".join(mode + b" " + path + b"\0" + bytes.fromhex(id_) for mode, path, id_ in entries)
    tree = git(bare, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", data=data)
    return repositories.commit_tree(name, tree)


@pytest.mark.parametrize(
    ("mode", "path", "says"),
    [
        (b"100644", b"..", "could escape its folder: '..'"),
        (b"100644", b"a/../../x", "could escape"),
        (b"100644", b".git", "could escape"),
        (b"40000", b".GIT", "could escape"),
        (b"100644", b"a\\b", "could escape"),
        (b"100644", b"C:", "could escape"),
        (b"100644", b"a\nb", "could escape"),
        (b"100644", b"\xff", "not UTF-8"),
        (b"100644", b"x" * 300, "a name of 300 bytes"),
        (b"010644", b"fifo", "unknown kind"),
    ],
)
def test_a_hostile_tree_is_refused(
    repositories: Repositories, tmp_path: Path, cache: Path, mode: bytes, path: bytes, says: str
) -> None:
    repositories.commit("p.git", FILES)
    bare = repositories.folder / "p.git"
    id_ = git(bare, "hash-object", "-w", "--stdin", data=b"evil")
    if mode == b"40000":
        id_ = git(bare, "rev-parse", "main^{tree}")
    commit = raw_tree(repositories, "p.git", (mode, path, id_))
    with pytest.raises(FormatError, match=says) as caught:
        write_repository(pinned(commit), cache, tmp_path / "deep" / "out", silent)
    assert (caught.value.where or "").startswith(f"git+{repositories.url}/p.git@")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_what_a_disk_changed_is_fetched_again(
    repositories: Repositories, tmp_path: Path, cache: Path
) -> None:
    commit = repositories.commit("p.git", FILES)
    write_repository(pinned(commit), cache, tmp_path / "one", silent)
    for file in (cache / "git" / commit.commit / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.write_bytes(file.read_bytes()[:-4] + b"0000")
    asked = len(repositories.asked)
    write_repository(pinned(commit), cache, tmp_path / "two", silent)
    assert len(repositories.asked) > asked
    assert files_of(tmp_path / "two") == FILES


def test_an_object_with_other_contents_is_not_believed(
    repositories: Repositories, tmp_path: Path, cache: Path
) -> None:
    """A loose object under another's id, which `git cat-file` would hand out."""
    commit = repositories.commit("p.git", FILES)
    write_repository(pinned(commit), cache, tmp_path / "one", silent)
    folder = cache / "git" / commit.commit
    shutil.rmtree(folder)
    shutil.copytree(repositories.folder / "p.git", folder)
    shutil.rmtree(repositories.folder / "p.git")
    wanted = hashlib.sha1(b"blob 7\0int a;\n").hexdigest()
    evil = git(folder, "hash-object", "-w", "--stdin", data=b"int evil;\n")
    place = folder / "objects" / wanted[:2] / wanted[2:]
    place.chmod(0o644)
    place.write_bytes((folder / "objects" / evil[:2] / evil[2:]).read_bytes())
    with pytest.raises(FatwheelError):
        write_repository(pinned(commit), cache, tmp_path / "two", silent)
    assert "evil" not in str(files_of(tmp_path / "two") if (tmp_path / "two").exists() else "")


def test_a_repository_has_limits(
    repositories: Repositories, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repositories.commit("p.git", {**FILES, "large": "x" * 5000})
    monkeypatch.setattr(module, "MAX_OBJECT", 4000)
    with pytest.raises(FormatError, match="has 5000 bytes"):
        write_repository(pinned(commit), cache, tmp_path / "one", silent)
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    with pytest.raises(FormatError, match="more than 3 files"):
        write_repository(pinned(commit), cache, tmp_path / "two", silent)
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_REPOSITORY", 100)
    monkeypatch.setattr(module, "_TICK", 0.001)
    shutil.rmtree(cache / "git")
    with pytest.raises(FetchError, match="more than 4 GiB"):
        write_repository(pinned(commit), cache, tmp_path / "three", silent)


def test_nobodys_settings_count(
    repositories: Repositories, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these would stop a fetch, or start a program."""
    commit = repositories.commit("p.git", FILES)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text(
        f'[url "file:///nowhere/"]\n  insteadOf = {repositories.url}/\n'
        "[protocol]\n  allow = never\n[core]\n  hooksPath = /nowhere\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "home" / ".gitconfig"))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", "/nowhere")
    write_repository(pinned(commit), cache, tmp_path / "out", silent)
    assert files_of(tmp_path / "out") == FILES


def test_a_lock_from_elsewhere_names_no_host_of_its_own(
    repositories: Repositories, tmp_path: Path, cache: Path
) -> None:
    commit = repositories.commit("p.git", FILES)
    pins = Repository(
        url=commit.url, commit=commit.commit, tree=commit.tree, hosts=frozenset({"example.org"})
    )
    with pytest.raises(FetchError, match="from which no toolchain or recipe here fetches"):
        write_repository(pins, cache, tmp_path / "out", silent)
    assert repositories.asked == []
