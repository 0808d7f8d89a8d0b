from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fatwheel.errors import StoreError
from fatwheel.worker.roots import Cover
from fatwheel.worker.view import Places, abstract, compiler_files, places_from_wire, shared_sources

PLACES = Places("/tmp/fatwheel/p-1/src", (("site", "/env/lib/site"), ("cuda", "/env/cuda")), "")
MARKS = (("/builds/p", "src"), ("/builds/p/env", "env"), ("/usr/include/python3.11", "python"))


# -- placeholders -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/builds/p", "@src@"),
        ("/builds/p/csrc/a.cu", "@src@/csrc/a.cu"),
        ("/builds/p/env/include", "@env@/include"),
        ("-I/builds/p/csrc", "-I@src@/csrc"),
        ("-O2,-I/builds/p,-I/builds/p/env", "-O2,-I@src@,-I@env@"),
        ("-fdebug-prefix-map=/builds/p=.", "-fdebug-prefix-map=@src@=."),
        ('ROOT="/builds/p"', 'ROOT="@src@"'),
        # Other folders, though their names begin or end alike:
        ("/builds/p2/a.cu", "/builds/p2/a.cu"),
        ("/builds/p-1/a.cu", "/builds/p-1/a.cu"),
        ("/builds/p.old", "/builds/p.old"),
        ("/mnt/builds/p/a.cu", "/mnt/builds/p/a.cu"),
        ("/sysroot/usr/include/python3.11", "/sysroot/usr/include/python3.11"),
        ("-std=c++17", "-std=c++17"),
    ],
)
def test_folders_become_placeholders(text: str, expected: str) -> None:
    assert abstract(text, MARKS) == expected


WINDOWS_MARKS = ((r"C:\b\project\p-1", "src"), (r"C:\cuda", "cuda"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"C:\b\project\p-1", "@src@"),
        (r"C:\b\project\p-1\csrc\a.cu", r"@src@\csrc\a.cu"),
        ("c:/B/Project/p-1/csrc/a.cu", "@src@/csrc/a.cu"),
        (r"-IC:\cuda\include", r"-I@cuda@\include"),
        (r"/IC:\cuda\include", r"/I@cuda@\include"),
        (r"/pathmap:C:\b\project\p-1=.", "/pathmap:@src@=."),
        (r"-EHsc,-IC:\cuda", "-EHsc,-I@cuda@"),
        # Other folders, though their names begin or end alike:
        (r"C:\cuda2\include", r"C:\cuda2\include"),
        (r"C:\b\project\p-1.old", r"C:\b\project\p-1.old"),
        (r"D:\cuda\include", r"D:\cuda\include"),
    ],
)
def test_folders_of_windows_become_placeholders(text: str, expected: str) -> None:
    assert abstract(text, WINDOWS_MARKS) == expected


def test_compilers_see_the_environment_through_the_jobs_folder() -> None:
    assert PLACES.in_view("@src@/a.cu") == "/tmp/fatwheel/p-1/src/a.cu"
    assert PLACES.in_view("-I@site@/torch/include") == "-I/proc/self/cwd/site/torch/include"


def test_paths_that_compilers_print_lead_to_the_real_files() -> None:
    assert PLACES.real("/proc/self/cwd/cuda/include/a.h") == "/env/cuda/include/a.h"
    assert PLACES.real("/tmp/fatwheel/p-1/src/a.h") == "/tmp/fatwheel/p-1/src/a.h"
    assert PLACES.real("/usr/include/stdio.h") == "/usr/include/stdio.h"


def test_a_process_in_a_jobs_folder_finds_the_environment(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.h").write_text("content")
    job = tmp_path / "job"
    job.mkdir()
    Places("/src", (("site", str(tmp_path / "site")),), "").link_into(job)
    read = subprocess.run(
        ["cat", "/proc/self/cwd/site/a.h"], cwd=job, capture_output=True, text=True, check=True
    )
    assert read.stdout == "content"


def test_paths_of_the_project_are_told_from_others() -> None:
    source = "/tmp/fatwheel/p-1/src"
    assert PLACES.relative(f"{source}/a.cu") == "a.cu"
    assert PLACES.relative(f"{source}/csrc/../include/a.h") == "include/a.h"
    assert PLACES.relative(f"{source}/../../q-1/src/a.h") is None
    assert PLACES.relative(f"{source}2/a.h") is None
    assert PLACES.relative("/usr/include/stdio.h") is None


@pytest.mark.parametrize(
    "places",
    [
        PLACES,
        dataclasses.replace(PLACES, files=(("a.cu", "0" * 64),)),
        dataclasses.replace(PLACES, files=(), cover=Cover("/cache/refuge", ("env", "gcc"))),
    ],
)
def test_places_are_the_same_behind_a_pipe(places: Places) -> None:
    assert places_from_wire(json.loads(json.dumps(dataclasses.asdict(places)))) == places


# -- what a compiler may read ---------------------------------------------------------------


def test_sources_are_found_whatever_headers_are_called(tmp_path: Path) -> None:
    wanted = ["a.cu", "b.cuh", "c.cpp", "d.h", "e.inl", "Eigen/Dense", "f.C", "g.c++", "h.tcc"]
    others = ["README.md", "a.o", "m.py", ".ninja_log", ".git/HEAD", "p.egg-info/PKG-INFO"]
    for name in wanted + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = compiler_files(tmp_path)
    assert sorted(found) == sorted(wanted)
    # sha256 of the four bytes `a.cu`, from coreutils.
    known = subprocess.run(
        ["sha256sum"], input="a.cu", capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert found["a.cu"] == known


def test_copies_that_setuptools_makes_for_the_wheel_are_no_sources(tmp_path: Path) -> None:
    """They lie in a folder named after the Python; what a setup.py generates is a source."""
    for name in ("build/lib.linux-x86_64-cpython-311/p/a.cu", "build/gen/b.cu", "p/build/lib/c.h"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    assert list(compiler_files(tmp_path)) == ["build/gen/b.cu", "p/build/lib/c.h"]
    assert list(compiler_files(tmp_path, "p")) == [
        "build/gen/b.cu", "build/lib.linux-x86_64-cpython-311/p/a.cu",
    ]  # fmt: skip


def test_a_folder_that_is_missing_has_no_sources(tmp_path: Path) -> None:
    assert compiler_files(tmp_path / "missing") == {}


# -- the shared folder ----------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "view").mkdir()
    return tmp_path / "view"


def project(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}.cu").write_text(content)
    return folder


def test_the_view_holds_exactly_the_sources(root: Path, tmp_path: Path) -> None:
    origin = project(tmp_path / "p", a="one", b="two")
    (origin / "notes.md").write_text("not for compilers")
    with shared_sources(root, "p-1", origin, compiler_files(origin)) as source:
        assert source == root / "p-1" / "src"
        assert {path.name: path.read_text() for path in source.iterdir()} == {
            "a.cu": "one", "b.cu": "two",
        }  # fmt: skip
        assert {path.stat().st_mtime for path in source.iterdir()} == {0}


def test_other_content_takes_the_place_of_the_old(root: Path, tmp_path: Path) -> None:
    old, new = project(tmp_path / "old", a="one", b="two"), project(tmp_path / "new", a="three")
    with shared_sources(root, "p-1", old, compiler_files(old)):
        pass
    with shared_sources(root, "p-1", new, compiler_files(new)) as source:
        assert [path.read_text() for path in source.iterdir()] == ["three"]


def test_a_half_filled_folder_is_filled_again(root: Path, tmp_path: Path) -> None:
    origin = project(tmp_path / "p", a="one", b="two")
    with shared_sources(root, "p-1", origin, compiler_files(origin)) as source:
        (source / "b.cu").unlink()
        (source / "a.cu").write_text("o")
    with shared_sources(root, "p-1", origin, compiler_files(origin)) as source:
        assert (source / "a.cu").read_text() == "one"
        assert (source / "b.cu").read_text() == "two"


def test_a_folder_that_others_could_read_is_closed(root: Path, tmp_path: Path) -> None:
    origin = project(tmp_path / "p", a="one")
    (root / "p-1").mkdir(mode=0o755)
    with shared_sources(root, "p-1", origin, compiler_files(origin)):
        assert [path.name for path in root.iterdir() if path.stat().st_mode & 0o077] == []


def test_what_others_could_write_into_is_made_again(root: Path, tmp_path: Path) -> None:
    """They may still hold a folder in it, whatever its mode is by now."""
    origin = project(tmp_path / "p", a="one")
    with shared_sources(root, "p-1", origin, compiler_files(origin)) as source:
        held = os.open(source, os.O_DIRECTORY)
    (root / "p-1").chmod(0o775)
    with shared_sources(root, "p-1", origin, compiler_files(origin)) as source:
        assert not os.path.samestat(os.fstat(held), source.stat())
        assert (source / "a.cu").read_text() == "one"
        assert (root / "p-1").stat().st_mode & 0o077 == 0
    os.close(held)


def test_finished_files_have_names_of_their_own_for_folders() -> None:
    """The innermost folder comes last: it is the one that counts."""
    links = (("site", "/env/lib/site"), ("python", "/usr/include/python3.11"))
    assert Places("/tmp/fatwheel/p-1/src", links, "").mapped() == (
        ("/proc/self/cwd", "."),
        ("/proc/self/cwd/site", "site"),
        ("/proc/self/cwd/python", "python"),
        ("/tmp/fatwheel/p-1/src", "p-1"),
    )


def test_a_project_folder_that_cannot_be_made_is_an_error(root: Path, tmp_path: Path) -> None:
    (root / "p-1").write_text("in the way")
    with pytest.raises(StoreError, match="laid out"), shared_sources(root, "p-1", tmp_path, {}):
        pass


# -- several builds at once -----------------------------------------------------------------

# Prints `in` when it is inside, leaves when its input ends, and says what it read until then.
HOLDER = """
    import sys
    from pathlib import Path
    from fatwheel.worker import view
    root, origin = Path(sys.argv[1]), Path(sys.argv[2])
    with view.shared_sources(root, "p-1", origin, view.compiler_files(origin)) as source:
        print("in", flush=True)
        sys.stdin.read()
        print((source / "a.cu").read_text(), flush=True)
"""


class Holder:
    def __init__(self, root: Path, origin: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(HOLDER), str(root), str(origin)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_until_inside(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "in\n"

    def leave(self) -> str:
        """Leave the view; what the sources were just before."""
        out, _ = self.process.communicate(timeout=120)
        return str(out)


@pytest.fixture
def hold(root: Path) -> Iterator[Callable[[Path], Holder]]:
    holders: list[Holder] = []

    def start(origin: Path) -> Holder:
        holders.append(Holder(root, origin))
        return holders[-1]

    yield start
    for holder in holders:
        holder.process.kill()
        holder.process.communicate()


def _blocked(process: subprocess.Popen[str]) -> bool:
    """Whether it still is not inside, after time enough to start and to come to the lock."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended instead of waiting"
        for path in Path(f"/proc/{process.pid}/fd").iterdir():
            # It opens and closes other files meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if os.path.basename(os.readlink(path)) == "p-1.lock":
                    time.sleep(0.3)
                    return True
        time.sleep(0.01)
    return False


def test_builds_of_the_same_sources_share_the_view(
    hold: Callable[[Path], Holder], tmp_path: Path
) -> None:
    one, two = project(tmp_path / "one", a="same"), project(tmp_path / "two", a="same")
    first, second = hold(one), hold(two)
    first.wait_until_inside()
    second.wait_until_inside()
    assert first.leave() == second.leave() == "same\n"


def test_a_build_of_other_sources_waits(hold: Callable[[Path], Holder], tmp_path: Path) -> None:
    one, two = project(tmp_path / "one", a="first"), project(tmp_path / "two", a="second")
    first = hold(one)
    first.wait_until_inside()
    second = hold(two)
    assert _blocked(second.process)
    assert first.leave() == "first\n", "the sources changed under a build"
    second.wait_until_inside()
    assert second.leave() == "second\n"


def test_several_builds_of_several_sources_all_end(
    hold: Callable[[Path], Holder], tmp_path: Path
) -> None:
    names = ["x", "y", "x", "y"]
    origins = [project(tmp_path / str(i), a=name) for i, name in enumerate(names)]
    holders = [hold(origin) for origin in origins]
    for holder in holders:  # each leaves as soon as it was inside
        assert holder.process.stdin is not None
        holder.process.stdin.close()
        holder.process.stdin = None
    assert [holder.leave() for holder in holders] == [f"in\n{name}\n" for name in names]


def test_a_killed_build_leaves_the_view_free(
    hold: Callable[[Path], Holder], tmp_path: Path
) -> None:
    one, two = project(tmp_path / "one", a="first"), project(tmp_path / "two", a="second")
    first = hold(one)
    first.wait_until_inside()
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    second = hold(two)
    second.wait_until_inside()
    assert second.leave() == "second\n"
