"""Modes and times of installed files."""

from __future__ import annotations

import os
from pathlib import Path

from fatwheel.provision.mend import finish, stamp

YEAR_2020 = 1577836800  # date -u -d 2020-01-01 +%s


def test_a_finished_file_has_one_mode_and_one_time_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        for name in ("tool", "text"):
            (tmp_path / name).touch()
    finally:
        os.umask(before)
    finish(tmp_path / "tool", executable=True)
    finish(tmp_path / "text")
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert modes == {"tool": "0o755", "text": "0o644"}
    assert {path.stat().st_mtime for path in tmp_path.iterdir()} == {YEAR_2020}


def test_everything_below_a_folder_is_stamped_and_nothing_that_a_link_leads_to(
    tmp_path: Path,
) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    inside = tmp_path / "env" / "include" / "deep.h"
    inside.parent.mkdir(parents=True)
    inside.touch()
    link = tmp_path / "env" / "link"
    link.symlink_to(outside)
    stamp(tmp_path / "env")
    times = {path.name: path.lstat().st_mtime for path in (inside, inside.parent, link)}
    assert times == {"deep.h": YEAR_2020, "include": YEAR_2020, "link": YEAR_2020}
    assert outside.stat().st_mtime != YEAR_2020
