"""New recipes: what is pinned, what is read of a project, and what is left to the author."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fatwheel.config.load import load_recipe
from fatwheel.errors import FatwheelError, FetchError, FormatError, UsageError
from fatwheel.events import silent
from fatwheel.pipeline import newrecipe as module
from fatwheel.pipeline.newrecipe import (
    Findings,
    RecipeRequest,
    imports_of,
    new_recipe,
    questions,
    text_of,
)
from tests.helpers.gitserver import Repositories, git, served
from tests.helpers.webserver import Server, body

SETUP = """\
import os
if os.environ.get("DEMO_FORCE_BUILD") or os.getenv('FORCE_CUDA', '0') == '1':
    pass
flags = os.environ["DEMO_FLAGS"]
if "DEMO_DEBUG" in os.environ or os.environ.get("LD_PRELOAD"):
    flags += "-gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a"
"""
PROJECT = '[project]\nname = "demo-ext"\nversion = "1.2"\n'


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in. Nothing is locked and captured here: builds are tried elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))

    def not_here(*_: object, **__: object) -> None:
        raise UsageError("not here", details=["said last"])

    monkeypatch.setattr(module, "lock_recipe", not_here)
    return tmp_path


@pytest.fixture
def repositories(tool: Callable[[str], str], tmp_path: Path) -> Iterator[Repositories]:
    tool("git")
    with served(tmp_path / "served") as found:
        yield found


def made(*words: str, **options: object) -> module.NewRecipe:
    return new_recipe(RecipeRequest(words, **options), silent)  # type: ignore[arg-type]


def modules(*submodules: tuple[str, str]) -> str:
    return "".join(f'[submodule "x"]\n\tpath = {path}\n\turl = {url}\n' for path, url in submodules)


def test_a_repository_is_pinned_with_all_submodules(repositories: Repositories) -> None:
    deep = repositories.commit("deep.git", {"d.h": "d"})
    inner = repositories.commit(
        "inner.git", {".gitmodules": modules(("deep", deep.url)), "deep": f"=> {deep.commit}"}
    )
    outer = repositories.commit(
        "p.git",
        {
            "setup.py": SETUP, "pyproject.toml": PROJECT, "third/i": f"=> {inner.commit}",
            ".gitmodules": modules(("third/i", "../inner.git")),
        },
    )  # fmt: skip
    written = made("git", f"{outer.url}@main")
    assert str(written.file) == "kernels/demo-ext/recipe.toml"
    recipe = load_recipe("demo-ext", Path("kernels"))
    git = recipe.source.git
    assert git is not None
    assert (git.url, git.commit, git.tree) == (outer.url, outer.commit, outer.tree)
    assert [(one.path, one.url, one.commit, one.tree) for one in git.submodules] == [
        ("third/i", inner.url, inner.commit, inner.tree),
        ("third/i/deep", deep.url, deep.commit, deep.tree),
    ]
    assert (recipe.project, recipe.version) == ("demo-ext", "1.2")
    assert recipe.environment == {"DEMO_FORCE_BUILD": "TRUE", "FORCE_CUDA": "1"}
    assert "# Read by its setup.py, too: DEMO_FLAGS, DEMO_DEBUG\n" in written.file.read_text()
    said = list(questions(written))
    assert said[0] == "what its build requires is not pinned: not here; said last"
    assert "archs are a proposal; its build files name 80, 90a" in said


def test_nothing_is_overwritten_unasked(repositories: Repositories) -> None:
    commit = repositories.commit("p.git", {"setup.py": "", "pyproject.toml": PROJECT})
    words = ("git", f"{commit.url}@{commit.commit}")
    file = made(*words).file
    file.write_text("mine")
    (file.parent / "verify.py").write_text("")
    for options in ({}, {"name": "demo-ext"}):
        with pytest.raises(UsageError, match="there is a recipe of that name"):
            made(*words, **options)
    assert file.read_text() == "mine"
    assert made(*words, name="other").file.parent.name == "other"
    written = made(*words, force=True)
    assert "mine" not in file.read_text()
    assert not any("verify.py" in line for line in questions(written))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc", "ext::sh -c touch% /tmp/x", "git@example.org:x/y.git", "ssh://x/y.git",
        "http://example.org/x.git", "https://me:pw@example.org/x.git", "-uX", "",
    ],
)  # fmt: skip
def test_a_hostile_submodule_is_refused(repositories: Repositories, url: str) -> None:
    inner = repositories.commit("inner.git", {"d.h": "d"})
    outer = repositories.commit(
        "p.git", {"setup.py": "", "s": f"=> {inner.commit}", ".gitmodules": modules(("s", url))}
    )
    with pytest.raises(FormatError, match="the submodule s is at"):
        made("git", f"{outer.url}@main")
    assert not Path("kernels").exists()


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]", "10.0.0.7", "127.1"])
def test_a_repository_from_elsewhere_reaches_nothing_private(host: str) -> None:
    """A server of this machine may have one that is there as well: the tests' own does."""
    check = module._check_near
    with pytest.raises(FormatError, match="submodule s is at the private address"):
        check(f"https://{host}/x.git", "https://example.org/p.git", "s")
    check(f"https://{host}/x.git", "http://127.0.0.1/p.git", "s")
    check("https://example.com/x.git", "https://example.org/p.git", "s")


def test_what_is_not_there(repositories: Repositories) -> None:
    commit = repositories.commit("p.git", {"setup.py": ""})
    with pytest.raises(FetchError, match="no branch or tag nothing"):
        made("git", f"{commit.url}@nothing")
    with pytest.raises(FetchError, match="no commit"):
        made("git", f"{commit.url}@{'ab' * 20}")


@pytest.mark.parametrize(
    "words",
    [("git",), ("git", "https://example.org/x.git"), ("demo",), ("demo>=1",), ("no/folder",),
     ("git", "file:///x.git@main"), ("git", "https://example.org/x.git@--upload-pack=x"),
     ("a", "b"), ("demo==not a version",)],
)  # fmt: skip
def test_what_is_no_source(words: tuple[str, ...]) -> None:
    with pytest.raises((UsageError, FormatError)):
        made(*words)
    assert not Path("kernels").exists()


def test_a_folder_becomes_a_checkout(tmp_path: Path) -> None:
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "setup.py").write_text("")
    (tmp_path / "next" / "pyproject.toml").write_text('[project]\nname = "a b"\nversion = "x"\n')
    file = made("next").file
    assert load_recipe(file).source.path == tmp_path / "next"
    assert load_recipe(file).project == "next", "a name that none can have is not taken over"


def test_an_sdist_is_pinned_by_what_the_index_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.unit.pipeline.test_source import archive

    data = archive(demo__setup_py=SETUP)
    sha256 = hashlib.sha256(data).hexdigest()
    with Server() as server:
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        server.serve("/f/demo_ext-1.2.tar.gz", data)
        names = ("demo_ext-1.2.tar.gz", "demo_ext-1.3.tar.gz", "demo_ext-1.2-py3-none-any.whl")
        links = [f'<a href="/f/{name}#sha256={sha256}">{name}</a>' for name in names]
        server.answers["/simple/demo-ext/"] = body("\n".join(links).encode(), "text/html")
        recipe = load_recipe(made("demo-ext==1.2").file)
        assert recipe.source.package is not None
        pin = recipe.source.package
        assert (pin.filename, pin.size, pin.sha256) == ("demo_ext-1.2.tar.gz", len(data), sha256)
        with pytest.raises(FetchError, match=r"no sdist of demo-ext 9.9 can be pinned"):
            made("demo-ext==9.9")
        unhashed = '<a href="/f/demo_ext-1.4.tar.gz">demo_ext-1.4.tar.gz</a>'
        server.answers["/simple/demo-ext/"] = body(unhashed.encode(), "text/html")
        with pytest.raises(FatwheelError, match="can be pinned"):
            made("demo-ext==1.4")


def test_imports_are_packages_and_libraries_behind_them() -> None:
    """What a package imports only if it can, `verify --import` must not go without."""
    members = ["d/__init__.py", "d/_C.abi3.so", "d_cuda.cpython-311-x86_64-linux-gnu.so", "d/x.so"]
    plain = [("g++", "-shared", "a.o", "-lcudart", "-o", "x.so")]
    assert imports_of(members, (), plain) == ["d", "d._C", "d_cuda"]
    for word in ("-ltorch", "-lc10", "site/torch/lib/libc10.so"):
        found = imports_of(members, (), [*plain, ("g++", "-shared", "b.o", word)])
        assert found == ["torch", "d", "d._C", "d_cuda"]
    assert imports_of(["d/__init__.py", "d/x.so"], (), [("g++", "-ltorch")]) == ["d"]
    assert imports_of(["e.so", "d.py", "d-1.dist-info/METADATA"], (), plain) == ["d"]


def test_the_text_is_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "src").mkdir()
    found = Findings("a.b", "1", ['folder = "src"'], ["FORCE_ONLY_CUDA", "X"], runtime=["einops"])
    (tmp_path / "x" / "recipe.toml").write_text(text_of(found))
    recipe = load_recipe(tmp_path / "x")
    assert (recipe.imports, recipe.environment) == (("a_b",), {"FORCE_ONLY_CUDA": "1"})


def test_a_tag_by_its_own_id_is_no_commit(repositories: Repositories) -> None:
    commit = repositories.commit("p.git", {"setup.py": ""})
    bare = repositories.folder / "p.git"
    git(bare, "tag", "-a", "-m", "x", "v1", commit.commit)
    with pytest.raises(FormatError, match="is no commit"):
        made("git", f"{commit.url}@{git(bare, 'rev-parse', 'v1')}")


def test_trees_that_multiply_come_to_an_end(repositories: Repositories) -> None:
    commit = repositories.commit("p.git", {"setup.py": ""})
    tree = commit.tree
    for _ in range(30):
        names = "".join(f"040000 tree {tree}\t{name}\n" for name in "abcdefgh")
        tree = git(repositories.folder / "p.git", "mktree", data=names.encode())
    bomb = repositories.commit_tree("p.git", tree)
    with pytest.raises(FormatError, match="more than 200000 files"):
        made("git", f"{bomb.url}@main")
