"""Where sources really lie, on a machine with other users: all in folders of the test's own."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fatwheel.errors import StoreError
from fatwheel.worker import roots
from fatwheel.worker.roots import Root, choose_root
from fatwheel.worker.view import Places

from ...conftest import missing

SOMEBODY_ELSE = 12345
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The fixed root, in a folder that everybody can reach and make something in."""
    with tempfile.TemporaryDirectory() as around:
        Path(around).chmod(0o755)
        tmp = Path(around, "tmp")
        tmp.mkdir()
        tmp.chmod(0o1777)
        monkeypatch.setattr(roots, "VIEW_ROOT", tmp / "fatwheel")
        yield tmp / "fatwheel"


@pytest.fixture
def refuge(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "refuge"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def covered(refuge: Path, *needed: Path) -> Root:
    """The root that compilers are shown by a mount."""
    root = choose_root(refuge, map(str, needed))
    if root.cover is None:
        missing("no user may mount in a namespace here (unshare --user --mount)")
    assert root.note == ""
    return root


def run(root: Root, script: str) -> subprocess.CompletedProcess[str]:
    """What a shell prints that sees what compilers see."""
    command = Places("", (), "", cover=root.cover).shown(["sh", "-c", script])
    return subprocess.run(command, capture_output=True, text=True, check=False)


# -- the fixed root -----------------------------------------------------------------------------


def test_a_free_fixed_root_is_made_and_nobody_else_can_open_it(fixed: Path, refuge: Path) -> None:
    assert choose_root(refuge, ()) == Root(fixed)
    assert mode_of(fixed) == 0o700
    assert not refuge.exists()


def test_a_root_that_others_could_read_is_closed(fixed: Path, refuge: Path) -> None:
    fixed.mkdir(mode=0o755)
    assert choose_root(refuge, ()) == Root(fixed)
    assert mode_of(fixed) == 0o700


def test_sources_in_the_fixed_root_are_seen_where_they_are(fixed: Path, refuge: Path) -> None:
    root = choose_root(refuge, ())
    assert root.seen(fixed / "p-1" / "src") == str(fixed / "p-1" / "src")
    assert Places("", (), "", cover=root.cover).shown(["true"]) == ["true"]


# -- where it cannot be used -----------------------------------------------------------------


def test_a_planted_link_is_not_followed(fixed: Path, refuge: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    fixed.symlink_to(tmp_path / "elsewhere")
    assert choose_root(refuge, ()).folder == refuge / "fatwheel"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_root_that_others_could_write_into_is_not_used(fixed: Path, refuge: Path) -> None:
    fixed.mkdir()
    fixed.chmod(0o775)
    assert choose_root(refuge, ()).folder == refuge / "fatwheel"
    assert (mode_of(refuge), mode_of(refuge / "fatwheel")) == (0o700, 0o700)


def test_a_root_that_others_could_rename_is_not_used(fixed: Path, refuge: Path) -> None:
    fixed.parent.chmod(0o777)  # not sticky
    assert choose_root(refuge, ()).folder == refuge / "fatwheel"


@as_root
def test_a_root_of_somebody_else_is_not_used(fixed: Path, refuge: Path) -> None:
    fixed.mkdir(mode=0o700)
    os.chown(fixed, SOMEBODY_ELSE, SOMEBODY_ELSE)
    assert choose_root(refuge, ()).folder == refuge / "fatwheel"
    assert list(fixed.iterdir()) == []


@as_root
def test_a_root_in_somebody_elses_folder_is_not_used(fixed: Path, refuge: Path) -> None:
    os.chown(fixed.parent, SOMEBODY_ELSE, SOMEBODY_ELSE)
    assert choose_root(refuge, ()).folder == refuge / "fatwheel"


def test_a_refuge_that_others_could_write_into_is_an_error(fixed: Path, refuge: Path) -> None:
    fixed.write_text("in the way")
    refuge.mkdir(parents=True)
    refuge.chmod(0o777)
    with pytest.raises(StoreError, match="no safe folder") as caught:
        choose_root(refuge, ())
    assert str(refuge) in str(caught.value.hint), "it does not say what to remove"


# -- what compilers see instead ---------------------------------------------------------------


def test_compilers_see_the_fixed_path_wherever_the_sources_are(fixed: Path, refuge: Path) -> None:
    fixed.write_text("in the way")
    root = covered(refuge)
    source = root.folder / "p-1" / "src"
    source.mkdir(parents=True)
    (source / "a.cu").write_text("mine")
    seen = root.seen(source)
    assert seen == str(fixed / "p-1" / "src")
    ended = run(root, f"cd {seen} && pwd -P && cat a.cu && kill -9 $$")
    assert ended.stdout == f"{seen}\nmine"
    assert ended.returncode == -9, "a signal ends the compiler itself"
    places = Places(seen, (), "", cover=root.cover)
    assert Path(places.real(f"{seen}/a.cu")).read_text() == "mine"
    assert places.real("/usr/include/stdio.h") == "/usr/include/stdio.h"
    assert fixed.read_text() == "in the way"


@as_root
def test_who_renames_the_fixed_root_takes_nothing_along(fixed: Path, refuge: Path) -> None:
    (fixed / "p-1" / "src").mkdir(parents=True)
    (fixed / "p-1" / "src" / "a.cu").write_text("theirs")
    os.chown(fixed, SOMEBODY_ELSE, SOMEBODY_ELSE)
    root = covered(refuge)
    (root.folder / "p-1" / "src").mkdir(parents=True)
    (root.folder / "p-1" / "src" / "a.cu").write_text("mine")
    go, gone = fixed.parent.parent / "go", fixed.parent.parent / "gone"
    os.mkfifo(go)
    os.mkfifo(gone)
    command = Places("", (), "", cover=root.cover).shown(
        ["sh", "-c", f"echo >{go}; read line <{gone}; cat {fixed}/p-1/src/a.cu"]
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as compiler:
        go.read_text()
        aside = fixed.rename(fixed.with_name("aside"))
        (fixed / "p-1" / "src").mkdir(parents=True)
        (fixed / "p-1" / "src" / "a.cu").write_text("theirs")
        gone.write_text("\n")
        assert compiler.communicate()[0] == "mine"
    assert aside.exists()


def test_nothing_else_of_the_real_folder_is_seen(fixed: Path, refuge: Path) -> None:
    fixed.write_text("in the way")
    (fixed.parent / "other").mkdir()
    assert run(covered(refuge), f"ls {fixed.parent}").stdout == "fatwheel\n"


def test_what_compilers_need_of_the_real_folder_is_seen_too(fixed: Path, refuge: Path) -> None:
    """By its path and by the path that it leads to; and from a folder there."""
    fixed.write_text("in the way")
    tmp = fixed.parent
    job = tmp / "job with a blank" / "scratch"
    job.mkdir(parents=True)
    (tmp / "gcc" / "bin").mkdir(parents=True)
    (tmp / "gcc" / "bin" / "g++").write_text("a compiler")
    (tmp / "g++").symlink_to(tmp / "gcc" / "bin" / "g++")
    (tmp.parent / "linked").symlink_to(tmp / "gcc")
    for name in ("g++", "../linked/bin/g++"):
        root = covered(refuge, job, Path(os.path.abspath(tmp / name)))
        assert root.cover is not None
        command = root.cover.shown(["sh", "-c", f"cat {tmp}/{name} && pwd && echo >made"])
        done = subprocess.run(command, cwd=job, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (f"a compiler{job}\n", "")
        (job / "made").unlink()


def test_a_refuge_may_lie_in_the_folder_that_it_covers(fixed: Path) -> None:
    fixed.write_text("in the way")
    cache = fixed.parent / "cache"
    root = covered(cache / "refuge", cache)
    (root.folder / "a.cu").write_text("mine")
    assert run(root, f"cat {fixed}/a.cu; ls {cache}").stdout == "minerefuge\n"


# -- where no mount is possible ---------------------------------------------------------------


def without_mounts(root: Root, fixed: Path, refuge: Path) -> None:
    assert root == Root(refuge / "fatwheel", None, root.note)
    assert root.seen(root.folder / "p-1" / "src") == str(root.folder / "p-1" / "src")
    for said in ("will differ", str(fixed), str(root.folder), "--engine docker"):
        assert said in root.note


def test_a_machine_without_unshare_says_that_the_bytes_will_differ(
    fixed: Path, refuge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed.write_text("in the way")
    monkeypatch.setenv("PATH", str(tmp_path))
    without_mounts(choose_root(refuge, ()), fixed, refuge)


def test_a_system_that_forbids_to_mount_in_namespaces_is_found_out(
    fixed: Path, refuge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed.write_text("in the way")
    mount = tmp_path / "mount"
    mount.write_text("#!/bin/sh\necho mount: permission denied >&2; exit 32\n")
    mount.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    without_mounts(choose_root(refuge, ()), fixed, refuge)


def test_a_compiler_in_somebody_elses_folder_cannot_be_shown(fixed: Path, refuge: Path) -> None:
    (fixed / "gcc").mkdir(parents=True)
    fixed.chmod(0o777)
    without_mounts(choose_root(refuge, [str(fixed / "gcc")]), fixed, refuge)


def test_what_would_not_be_found_is_noticed(fixed: Path, refuge: Path, tmp_path: Path) -> None:
    """Neither its path nor where it leads to is in the covered folder, but what lies between."""
    fixed.write_text("in the way")
    (tmp_path / "gcc").mkdir()
    (fixed.parent / "between").symlink_to(tmp_path / "gcc")
    (tmp_path / "linked").symlink_to(fixed.parent / "between")
    without_mounts(choose_root(refuge, [str(tmp_path / "linked")]), fixed, refuge)
