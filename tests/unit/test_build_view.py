from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fatwheel.build import sight
from fatwheel.build.view import Places, abstract, compiler_files, shared_sources, shown_at
from fatwheel.errors import StoreError

from ..conftest import missing

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


def test_a_folder_that_is_missing_has_no_sources(tmp_path: Path) -> None:
    assert compiler_files(tmp_path / "missing") == {}


# -- the shared folder ----------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sight, "VIEW_ROOT", tmp_path / "view")
    return tmp_path / "view"


def project(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}.cu").write_text(content)
    return folder


def test_the_view_holds_exactly_the_sources(root: Path, tmp_path: Path) -> None:
    origin = project(tmp_path / "p", a="one", b="two")
    (origin / "notes.md").write_text("not for compilers")
    with shared_sources("p-1", origin, compiler_files(origin)) as source:
        assert source == root / "p-1" / "src"
        assert {path.name: path.read_text() for path in source.iterdir()} == {
            "a.cu": "one", "b.cu": "two",
        }  # fmt: skip
        assert {path.stat().st_mtime for path in source.iterdir()} == {0}


def test_other_content_takes_the_place_of_the_old(root: Path, tmp_path: Path) -> None:
    old, new = project(tmp_path / "old", a="one", b="two"), project(tmp_path / "new", a="three")
    with shared_sources("p-1", old, compiler_files(old)):
        pass
    with shared_sources("p-1", new, compiler_files(new)) as source:
        assert [path.read_text() for path in source.iterdir()] == ["three"]


def test_a_half_filled_folder_is_filled_again(root: Path, tmp_path: Path) -> None:
    origin = project(tmp_path / "p", a="one", b="two")
    with shared_sources("p-1", origin, compiler_files(origin)) as source:
        (source / "b.cu").unlink()
        (source / "a.cu").write_text("o")
    with shared_sources("p-1", origin, compiler_files(origin)) as source:
        assert (source / "a.cu").read_text() == "one"
        assert (source / "b.cu").read_text() == "two"


def test_a_planted_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    origin = project(tmp_path / "p", a="one")
    with shared_sources("p-1", origin, compiler_files(origin)) as source:
        assert source == Path(f"{root}-{os.getuid()}") / "p-1" / "src"
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder somebody else's")
def test_a_root_that_is_somebody_elses_is_left_alone(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    os.chown(root, 12345, 12345)
    origin = project(tmp_path / "p", a="one")
    with shared_sources("p-1", origin, compiler_files(origin)) as source:
        assert source == Path(f"{root}-0") / "p-1" / "src"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder somebody else's")
def test_compilers_see_the_fixed_root_wherever_the_sources_are(root: Path, tmp_path: Path) -> None:
    """And each other's folders stay what they are."""
    (root / "p-1" / "src").mkdir(parents=True)
    (root / "p-1" / "src" / "a.cu").write_text("somebody else's")
    os.chown(root, 12345, 12345)
    own = Path(f"{root}-0")
    if not sight.may_mount(_made(own)):
        missing("no user may mount in a namespace here (unshare --user --mount)")
    origin = project(tmp_path / "p", a="one")
    with shared_sources("p-1", origin, compiler_files(origin)) as found:
        source, shown_root = shown_at(found)
        assert (source, shown_root) == (str(root / "p-1" / "src"), str(own))
        places = Places(source, (), "", shown_root)
        command = ["sh", "-c", f"cd {source} && pwd -P && cat a.cu && kill -9 $$"]
        seen = subprocess.run(places.shown(command), capture_output=True, text=True, check=False)
        assert seen.stdout == f"{source}\none"
        assert seen.returncode == -9, "a signal ends the compiler itself"
        assert Path(places.real(f"{source}/a.cu")).read_text() == "one"
    assert (root / "p-1" / "src" / "a.cu").read_text() == "somebody else's"


def test_finished_files_have_names_of_their_own_for_folders() -> None:
    """The innermost folder comes last: it is the one that counts."""
    links = (("site", "/env/lib/site"), ("python", "/usr/include/python3.11"))
    assert Places("/tmp/fatwheel/p-1/src", links, "").mapped() == (
        ("/proc/self/cwd", "."),
        ("/proc/self/cwd/site", "site"),
        ("/proc/self/cwd/python", "python"),
        ("/tmp/fatwheel/p-1/src", "p-1"),
    )


def test_a_fixed_root_of_ones_own_needs_no_namespace(root: Path, tmp_path: Path) -> None:
    origin = project(tmp_path / "p", a="one")
    with shared_sources("p-1", origin, compiler_files(origin)) as found:
        assert shown_at(found) == (str(found), "")
        assert Places(str(found), (), "").shown(["true"]) == ["true"]


def test_a_planted_link_is_not_shown_either(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    origin = project(tmp_path / "p", a="one")
    with shared_sources("p-1", origin, compiler_files(origin)) as found:
        assert shown_at(found) == (str(found), "")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_both_roots_taken_is_an_error(root: Path, tmp_path: Path) -> None:
    root.write_text("")
    Path(f"{root}-{os.getuid()}").write_text("")
    with pytest.raises(StoreError, match="somebody else"), shared_sources("p-1", tmp_path, {}):
        pass


def test_a_root_that_cannot_be_made_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sight, "VIEW_ROOT", tmp_path / "file" / "view")
    with pytest.raises(StoreError, match="Not a directory"), shared_sources("p-1", tmp_path, {}):
        pass


def test_a_project_folder_that_cannot_be_made_is_an_error(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (root / "p-1").write_text("in the way")
    with pytest.raises(StoreError, match="laid out"), shared_sources("p-1", tmp_path, {}):
        pass


# -- several builds at once -----------------------------------------------------------------

# Prints `in` when it is inside, leaves when its input ends, and says what it read until then.
HOLDER = """
    import sys
    from pathlib import Path
    from fatwheel.build import sight, view
    sight.VIEW_ROOT, origin = Path(sys.argv[1]), Path(sys.argv[2])
    with view.shared_sources("p-1", origin, view.compiler_files(origin)) as source:
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
                if os.path.basename(os.readlink(path)) == "lock":
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
