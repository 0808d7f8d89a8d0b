"""The workflow that publishes, with real git and fatwheel: its scripts are run here, one after the
other, for two releases. `gh` stands in for GitHub's program; releases are folders to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..helpers.cudawheels import MODULE, NONE, Linker, sound, without
from ..helpers.workflows import workflows

JOBS = next(one.jobs for one in workflows() if one.path.name == "release.yml")
PUBLISH: dict[str, Any] = JOBS["publish"]
# The first installs fatwheel, which is here already.
SCRIPTS = [step for step in PUBLISH["steps"] if "run" in step][1:]
SERVER = "https://github.example"
TOKEN = "ghs_0123456789"
GH = """\
#!{python}
import fnmatch, os, pathlib, shutil, sys
releases = pathlib.Path(os.environ["RELEASES"])
_, verb, *words = sys.argv[1:]
options = dict(zip(words, words[1:]))
tag = releases / words[0]
if os.environ.get("UNREACHABLE") == f"{{verb}} {{words[0]}}":
    sys.exit("error connecting to api.github.com")
if verb == "list":
    print(*sorted((path.name for path in releases.iterdir()), reverse=True), sep="\\n")
elif verb == "view":
    if not tag.exists():
        sys.exit("release not found")
    if options["--json"] == "assets":
        print(*sorted(path.name for path in tag.iterdir()), sep="\\n")
    else:
        print("true" if (tag / "draft").exists() else "false")
elif verb == "delete":
    shutil.rmtree(tag)
elif verb == "download":
    found = [path for path in tag.iterdir() if fnmatch.fnmatch(path.name, options["--pattern"])]
    if not found:
        sys.exit("no assets match the file pattern")
    os.makedirs(options["--dir"], exist_ok=True)
    for path in found:
        shutil.copy(path, options["--dir"])
elif verb == "create":
    tag.mkdir()
    shutil.copy(options["--notes-file"], tag / "notes.md")
    for word in words:
        if word.startswith("dist/"):
            shutil.copy(word, tag)
"""


class Repository:
    """A repository on a server of files, its releases, and the runners of its workflow."""

    def __init__(self, folder: Path, git: str) -> None:
        self.folder = folder
        self.bare = folder / "server" / "org" / "wheels"
        self.releases = folder / "releases"
        self.releases.mkdir()
        subprocess.run([git, "init", "--quiet", "--bare", str(self.bare)], check=True)
        gh = folder / "bin" / "gh"
        gh.parent.mkdir()
        gh.write_text(GH.format(python=sys.executable))
        gh.chmod(0o755)

    def publish(
        self, tag: str, *wheels: Path, until: int | None = None, fails: str = "",
        unreachable: str = "",
    ) -> Path:  # fmt: skip
        """Run the job's scripts on these wheels, or the first of them; the runner's folder. fails:
        what the script says that ends the job. unreachable: a command of `gh`, with its tag, that
        does not reach the server."""
        runner = self.folder / f"runner-{tag}-{until}{fails and '-failed'}"
        built = runner / "built" / "wheels-one" / "dist"
        for folder in (built, runner / "report", runner / "previous", runner / "temp"):
            folder.mkdir(parents=True)
        for wheel in wheels:
            (built / wheel.name).write_bytes(wheel.read_bytes())
        for step in SCRIPTS[:until]:
            variables = {"UNREACHABLE": unreachable}
            variables |= {  # of the repository's own secrets, there are none
                name: TOKEN if value == "${{ github.token }}" else ""
                for name, value in step.get("env", {}).items()
            }
            done = subprocess.run(
                ["bash", "-eo", "pipefail", "-c", step["run"]],
                cwd=runner, env=self._variables(runner, tag) | variables,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            said = done.stdout + done.stderr
            if fails and done.returncode:
                assert fails in said
                return runner
            assert done.returncode == 0, f"{step['name']}:\n{said}"
        assert not fails
        return runner

    def _variables(self, runner: Path, tag: str) -> dict[str, str]:
        path = os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent)])
        return {
            **os.environ,
            "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "FATWHEEL_CACHE": str(self.folder / "cache"),
            "RELEASES": str(self.releases),
            "RUNNER_TEMP": str(runner / "temp"),
            "TAG": tag,
            "GITHUB_ACTOR": "somebody",
            "GITHUB_SHA": "0" * 40,
            "GITHUB_SERVER_URL": SERVER,
            "GITHUB_REPOSITORY": "org/wheels",
            # Where git finds that server.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{self.folder / 'server'}/.insteadOf",
            "GIT_CONFIG_VALUE_0": f"https://x-access-token:{TOKEN}@github.example/",
        }

    def site(self, name: str) -> str:
        """A file of the branch on which the site is kept."""
        return subprocess.run(
            ["git", "-C", str(self.bare), "show", f"site:{name}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip


@pytest.fixture
def repository(tool: Callable[[str], str], tmp_path: Path) -> Repository:
    return Repository(tmp_path, tool("git"))


@pytest.fixture
def make(tool: Callable[[str], str], tmp_path: Path) -> Callable[..., Path]:
    """Makes a wheel with nothing wrong in it."""
    linker = Linker(tmp_path, tool)

    def write(label: str, fatbin: bytes = NONE) -> Path:
        draft = sound(linker)
        draft.version = f"1.0+{label}"
        draft.files[MODULE] = linker.library(
            fatbin, ["PyInit__C"], ["libc10.so", "libcudart.so.13", "libc.so.6"]
        )
        return draft.write(tmp_path)

    return write


def test_two_releases(repository: Repository, make: Callable[..., Path]) -> None:
    first = make("cu130.sm80.ptx.sm90a", without(3))
    repository.publish("v1", first)
    second = make("cu130.sm80.ptx.sm90a.sm120f")
    runner = repository.publish("v2", second)

    notes = (repository.releases / "v2" / "notes.md").read_text()
    assert "- New: code for sm_120f" in notes
    assert "the same machine code" in notes
    offered = json.loads(repository.site("wheels.json"))["wheels"]
    assert {(one["offer"]["filename"], one["base"]) for one in offered} == {
        (wheel.name, f"{SERVER}/org/wheels/releases/download/{tag}/")
        for wheel, tag in ((first, "v1"), (second, "v2"))
    }
    for wheel, tag in ((first, "v1"), (second, "v2")):
        assets = {path.name for path in (repository.releases / tag).iterdir()}
        assert {wheel.name, f"{wheel.name}.metadata"} <= assets
        assert wheel.name in repository.site("simple/demo/index.html")
    assert repository.site(".nojekyll") == ""
    assert not list((runner / "temp").iterdir())
    kept = [path for path in runner.rglob("*") if path.is_file()]
    assert len(kept) > 20
    assert [path for path in kept if TOKEN.encode() in path.read_bytes()] == []


def test_a_run_that_was_interrupted_is_done_again(
    repository: Repository, make: Callable[..., Path]
) -> None:
    """Before the index was kept, and in the middle of an upload."""
    wheel = make("cu130.sm80.ptx.sm90a.sm120f")
    repository.publish("v1", wheel, until=-1)
    (repository.releases / "v1" / "draft").touch()
    repository.publish("v1", wheel)
    assert not (repository.releases / "v1" / "draft").exists()
    assert wheel.name in repository.site("simple/demo/index.html")


def test_a_tag_that_another_release_has(repository: Repository, make: Callable[..., Path]) -> None:
    """The index would promise wheels that are not in that."""
    first, second = make("cu130.sm80.ptx.sm90a", without(3)), make("cu130.sm80.ptx.sm90a.sm120f")
    repository.publish("v1", first)
    repository.publish("v1", second, fails="there is a release v1 with other wheels")
    assert second.name not in repository.site("simple/demo/index.html")


@pytest.mark.parametrize(
    "command", [pytest.param("view v2", marks=pytest.mark.long), "download v2"]
)
def test_a_release_that_cannot_be_reached_is_no_older_one(
    repository: Repository, make: Callable[..., Path], command: str
) -> None:
    """Else its notes would say what changed since the one before."""
    first, second = make("cu130.sm80.ptx.sm90a", without(3)), make("cu130.sm80.ptx.sm90a.sm120f")
    repository.publish("v1", first)
    repository.publish("v2", second)
    repository.publish("v3", second, fails="error connecting", unreachable=command)
    assert not (repository.releases / "v3").exists()


def test_a_release_that_cannot_be_asked_for_is_not_made(
    repository: Repository, make: Callable[..., Path]
) -> None:
    wheel = make("cu130.sm80.ptx.sm90a.sm120f")
    failing = "whether there is a release v1: error connecting"
    repository.publish("v1", wheel, fails=failing, unreachable="view v1")
    assert not list(repository.releases.iterdir())


def test_an_index_that_cannot_be_reached_is_not_begun_anew(
    repository: Repository, make: Callable[..., Path]
) -> None:
    """A release would be made before that comes out."""
    wheel = make("cu130.sm80.ptx.sm90a.sm120f")
    away = repository.bare.rename(repository.bare.with_name("away"))
    repository.publish("v1", wheel, fails="does not appear to be a git repository")
    assert not list(repository.releases.iterdir())
    away.rename(repository.bare)
    repository.publish("v1", wheel)
    assert wheel.name in repository.site("simple/demo/index.html")


def test_a_tag_that_is_called_like_the_branch_of_the_index(
    repository: Repository, make: Callable[..., Path]
) -> None:
    first, second = make("cu130.sm80.ptx.sm90a", without(3)), make("cu130.sm80.ptx.sm90a.sm120f")
    repository.publish("v1", first)
    git = ["git", "-C", str(repository.bare)]
    subprocess.run([*git, "tag", "site", "refs/heads/site"], check=True)
    repository.publish("site", second)
    subprocess.run([*git, "tag", "--delete", "site"], check=True)
    for wheel in (first, second):
        assert wheel.name in repository.site("simple/demo/index.html")


def script_of(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the first job."""
    [script] = [step["run"] for step in JOBS["matrix"]["steps"] if step["name"].startswith(name)]
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("tag", ["v1", "2.8.3+cu130", "release/2026-01_b"])
def test_a_tag_of_which_a_release_can_be(tool: Callable[[str], str], tag: str) -> None:
    tool("git")
    assert script_of("The tag", TAG=tag).returncode == 0


@pytest.mark.parametrize(
    "tag",
    ["", "v 1", "-v1", "v1#x", "v1?", "v%31", "v1\nv2", "a..b", "v.lock", "v1/", "v1.", "$(id)"],
)
def test_a_tag_of_which_no_release_can_be(tool: Callable[[str], str], tag: str) -> None:
    """It is refused before anything is built."""
    tool("git")
    done = script_of("The tag", TAG=tag)
    assert done.returncode == 1
    assert "::error::" in done.stdout


def test_what_is_named_twice_is_built_once(tool: Callable[[str], str], tmp_path: Path) -> None:
    """Artifacts of two jobs would have one name."""
    tool("jq")
    output = tmp_path / "output"
    done = script_of(
        "One job", GITHUB_OUTPUT=str(output), PLATFORMS="linux-x86_64", CUDAS="12.8, 13.0,12.8",
        TORCHES="2.11,",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = json.loads(output.read_text().removeprefix("cells="))
    assert [(one["cuda"], one["torch"]) for one in cells] == [("12.8", "2.11"), ("13.0", "2.11")]
