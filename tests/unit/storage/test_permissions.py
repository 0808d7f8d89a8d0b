"""Who else may change what lies at a path, told by real folders with real modes."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import stat
import subprocess
from pathlib import Path

import pytest

from fatwheel.storage import permissions
from fatwheel.storage.files import locked
from fatwheel.storage.permissions import PermissionGap, gap_of, open_lock, private_folder

SOMEBODY_ELSE = 12345
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")


def made(folder: Path, mode: int, owner: int | None = None, group: int = -1) -> Path:
    folder.mkdir(exist_ok=True)
    if owner is not None or group != -1:
        os.chown(folder, -1 if owner is None else owner, group)
    folder.chmod(mode)
    return folder


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that others can reach, as far as `gap_of` looks."""
    folder = made(tmp_path / "around", 0o755)
    looked_at = Path.parents.fget  # type: ignore[attr-defined]

    def parents(path: Path) -> list[Path]:
        return [above for above in looked_at(path) if above.is_relative_to(folder)]

    monkeypatch.setattr(Path, "parents", property(parents))
    return folder


# -- private folders ----------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o002, 0o022])
def test_a_folder_is_made_closed_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        assert private_folder(tmp_path / "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_folder_that_others_could_read_is_closed(tmp_path: Path) -> None:
    folder = made(tmp_path / "folder", 0o755)
    assert private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_folder_that_others_could_write_into_is_none(mode: int, tmp_path: Path) -> None:
    folder = made(tmp_path / "folder", mode)
    assert not private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == mode


@as_root
def test_a_folder_of_somebody_else_is_none(tmp_path: Path) -> None:
    assert not private_folder(made(tmp_path / "folder", 0o700, SOMEBODY_ELSE))


def test_neither_a_link_nor_a_file_is_a_private_folder(tmp_path: Path) -> None:
    made(tmp_path / "folder", 0o755)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "file").touch()
    assert not private_folder(tmp_path / "link")
    assert not private_folder(tmp_path / "file")
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


# -- gaps ---------------------------------------------------------------------------------------


def test_a_folder_that_others_can_only_read_has_no_gap(around: Path) -> None:
    assert gap_of(made(around / "cache", 0o755)) is None


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o703])
def test_a_folder_that_everybody_can_write_into_is_one(mode: int, around: Path) -> None:
    cache = made(around / "cache", mode)
    found = gap_of(cache)
    assert found == PermissionGap(cache, "every user of this machine", True, f"chmod o-w {cache}")
    subprocess.run(found.mend.split(), check=True)
    assert gap_of(cache) is None


def test_who_can_rename_a_folder_around_it_can_put_another_there(around: Path) -> None:
    open_ = made(around / "open", 0o777)
    cache = made(open_ / "cache", 0o700)
    assert gap_of(cache) == PermissionGap(
        open_, "every user of this machine", True, f"chmod o-w {open_}"
    )
    open_.chmod(0o1777)
    assert gap_of(cache) is None, "in a sticky folder only the owner can"


def test_a_link_is_asked_for_what_it_leads_to(around: Path) -> None:
    (around / "link").symlink_to(made(around / "cache", 0o777))
    found = gap_of(around / "link")
    assert found is not None
    assert found.folder == around / "cache"


@pytest.mark.parametrize(("mode", "closed"), [(0o700, True), (0o750, False), (0o711, False)])
def test_what_nobody_can_reach_may_be_open(mode: int, closed: bool, around: Path) -> None:
    home = made(around / "home", mode, group=SOMEBODY_ELSE if os.getuid() == 0 else -1)
    if os.getuid() != 0 and mode == 0o750:
        pytest.skip("only root can give a folder to another group")
    found = gap_of(made(home / "cache", 0o777))
    assert (found is None) is closed
    if mode == 0o750:
        assert found is not None
        assert (found.who, found.everybody) == (f"the group {SOMEBODY_ELSE}", False)


@as_root
def test_a_group_that_can_write_is_told_from_everybody(around: Path) -> None:
    cache = made(around / "cache", 0o2775, group=SOMEBODY_ELSE)
    expected = PermissionGap(cache, f"the group {SOMEBODY_ELSE}", False, f"chmod g-w {cache}")
    assert gap_of(cache) == expected


def test_a_group_that_is_the_users_alone_is_nobody_else(
    around: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = made(around / "cache", 0o775)
    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(cache.stat().st_gid)
    if user.pw_gid == group.gr_gid and user.pw_name == group.gr_name:
        assert gap_of(cache) is None
    of_two = grp.struct_group((user.pw_name, "x", group.gr_gid, [user.pw_name, "other"]))
    monkeypatch.setattr(permissions.grp, "getgrgid", lambda _: of_two)
    found = gap_of(cache)
    assert found is not None
    assert found.who == f"the group {user.pw_name}"


@as_root
@pytest.mark.parametrize(("mode", "anybody"), [(0o755, False), (0o1777, True)])
def test_another_owner_is_a_gap(mode: int, anybody: bool, around: Path) -> None:
    """Where everybody may make folders, anybody may have made this one."""
    around.chmod(mode)
    cache = made(around / "cache", 0o755, SOMEBODY_ELSE)
    assert gap_of(cache) == PermissionGap(cache, f"the user {SOMEBODY_ELSE}", anybody)


# -- locks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "lock"), [(0o700, 0o600), (0o755, 0o600), (0o2775, 0o660), (0o1777, 0o666)]
)
def test_those_can_open_a_lock_who_may_write_into_its_folder(
    folder: int, lock: int, tmp_path: Path
) -> None:
    made(tmp_path / "store", folder)
    with locked(tmp_path / "store" / "lock"):
        assert stat.S_IMODE((tmp_path / "store" / "lock").stat().st_mode) == lock


def test_a_lock_that_everybody_could_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "lock").chmod(0o644)
    os.close(open_lock(tmp_path / "lock"))
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


@as_root
def test_another_user_cannot_hold_a_lock(tmp_path: Path, tool: object) -> None:
    """In a folder that everybody can read, as a cache was that an umask of 022 made."""
    folder = made(tmp_path / "cache", 0o755)
    with locked(folder / "lock"):
        pass
    handle = os.open(folder, os.O_RDONLY)  # pytest's own folders are closed to others
    script = f"import fcntl; fcntl.flock(open('/proc/self/fd/{handle}/lock'), fcntl.LOCK_EX)"
    done = subprocess.run(
        ["setpriv", f"--reuid={SOMEBODY_ELSE}", f"--regid={SOMEBODY_ELSE}", "--clear-groups",
         "/usr/bin/python3", "-c", script],
        pass_fds=[handle], capture_output=True, text=True, check=False,
    )  # fmt: skip
    os.close(handle)
    assert "PermissionError" in done.stderr, done.stderr
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
