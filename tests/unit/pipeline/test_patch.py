"""Patches as git and diff write them; each that does not apply is said by file and hunk."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fatwheel.errors import ConfigError, FatwheelError, FormatError
from fatwheel.pipeline.patch import apply_patch

TEXT = "".join(f"line {number}\n" for number in range(1, 41))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "p" / "csrc").mkdir(parents=True)
    (tmp_path / "p" / "csrc" / "a.cu").write_text(TEXT)
    return tmp_path / "p"


def hunk(header: str, *lines: str) -> str:
    return f"@@ {header} @@\n" + "".join(f"{line}\n" for line in lines)


def patch(*hunks: str, old: str = "a/csrc/a.cu", new: str = "b/csrc/a.cu") -> bytes:
    return (f"--- {old}\n+++ {new}\n" + "".join(hunks)).encode()


FIRST = hunk("-2,3 +2,3", " line 2", "-line 3", "+line three", " line 4")
SECOND = hunk("-20,2 +20,3", " line 20", "+line 20.5", " line 21")


def test_hunks_apply_in_order(root: Path) -> None:
    apply_patch(b"From: me\nSubject: words\n\n" + patch(FIRST, SECOND) + b"-- \n2.39\n", "p", root)
    wanted = TEXT.replace("line 3\n", "line three\n").replace("line 20\n", "line 20\nline 20.5\n")
    assert (root / "csrc" / "a.cu").read_text() == wanted


def test_a_hunk_may_stand_elsewhere_if_that_is_the_only_place(root: Path) -> None:
    (root / "csrc" / "a.cu").write_text("new\nnew\n" + TEXT)
    apply_patch(patch(FIRST, SECOND), "p", root)
    text = (root / "csrc" / "a.cu").read_text()
    assert text.startswith("new\nnew\nline 1\nline 2\nline three\n")
    assert "line 20\nline 20.5\nline 21\n" in text


def refused(root: Path, data: bytes) -> ConfigError:
    before = (root / "csrc" / "a.cu").read_bytes()
    with pytest.raises(ConfigError) as caught:
        apply_patch(data, "demo/x.patch", root)
    assert (root / "csrc" / "a.cu").read_bytes() == before
    return caught.value


def test_a_hunk_that_does_not_apply_is_named(root: Path) -> None:
    wrong = hunk("-20,2 +20,3", " line 20", "+line 20.5", " line XX")
    error = refused(root, patch(FIRST, wrong))
    assert error.what == "the patch does not apply: hunk 2 of 2 of csrc/a.cu"
    assert error.where == "demo/x.patch:8"
    assert error.details == (
        "@@ -20,2 +20,3 @@", "line 21 should be: line XX", "and is: line 21",
    )  # fmt: skip


def test_a_hunk_behind_the_end_is_named(root: Path) -> None:
    error = refused(root, patch(hunk("-39,3 +39,2", " line 39", " line 40", "-line 41")))
    assert error.details[1:] == ("line 41 should be: line 41", "and is: behind the end of the file")


def test_a_hunk_that_fits_twice_is_not_guessed(root: Path) -> None:
    (root / "csrc" / "a.cu").write_text("x\n}\ny\n}\nz\n}\n")
    error = refused(root, patch(hunk("-9,1 +9,2", " }", "+new")))
    assert error.details == ("@@ -9,1 +9,2 @@ fits at 3 places, and not at its own",)


def test_a_patch_applied_twice_is_told(root: Path) -> None:
    apply_patch(patch(FIRST), "p", root)
    assert "hunk 1 of 1" in refused(root, patch(FIRST)).what


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (patch(FIRST, old="a/b.cu", new="b/b.cu"), "b.cu is not in the source"),
        (patch(hunk("-0,0 +1", "+x"), old="/dev/null"), "csrc/a.cu is there already"),
        (patch(hunk("-1 +0,0", "-line 1"), new="/dev/null"), "more lines than the patch deletes"),
        (patch(hunk("-0,0 +1", "+x"), old="/dev/null", new="b/csrc/a.cu/x"), "no folder"),
        (patch(FIRST, old="a/csrc", new="b/csrc"), "csrc is no plain file"),
    ],
)
def test_what_is_not_as_the_patch_has_it(root: Path, data: bytes, says: str) -> None:
    assert says in refused(root, data).what


@pytest.mark.parametrize(
    "name",
    [
        "b/../../x", "/etc/x", "b/a/../../../x", "b/.git/config", "b/C:/x", "b/a\\..\\x", "b/..",
        '"b/x"', "x", "b/a\x01b",
    ],
)  # fmt: skip
def test_a_patch_writes_nowhere_else(root: Path, name: str) -> None:
    with pytest.raises(FormatError):
        apply_patch(patch(hunk("-0,0 +1", "+x"), old="/dev/null", new=name), "p", root)
    assert [path.name for path in root.parent.iterdir()] == ["p"]


def test_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.cu").write_text(TEXT)
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "link.cu").symlink_to(tmp_path / "outside" / "a.cu")
    for place in ("linked/a.cu", "link.cu"):
        with pytest.raises(
            ConfigError, match="is no plain file" if place == "link.cu" else "no folder"
        ):
            apply_patch(patch(FIRST, old=f"a/{place}", new=f"b/{place}"), "p", root)
    assert (tmp_path / "outside" / "a.cu").read_text() == TEXT


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no file is changed"),
        (b"words\n", "no file is changed"),
        (hunk("-1 +1", "-a", "+b").encode(), "a hunk without a file"),
        (patch(), "a file without a hunk"),
        (patch("@@ -1,5 +1,5 @@\n a\n"), "ends before it has all its lines"),
        (patch("@@ -1,1 +1,1 @@\n-a\n+b\n+c\n"), "has more lines than it says"),
        (patch("@@ -1,2 +1,1 @@\n-a\n+b\n+c\n b\n"), "other lines than it says"),
        (patch(FIRST, new="b/csrc/b.cu"), "it renames a/csrc/a.cu"),
        (b"diff --git a/x b/y\nrename from x\nrename to y\n", "it renames a file"),
        (b"diff --git a/x b/x\nnew file mode 120000\n" + patch(FIRST), "mode 120000"),
        (b"diff --git a/x b/x\nnew file mode 160000\n" + patch(FIRST), "mode 160000"),
        (b"diff --git a/x b/x\nindex 1..2\nGIT binary patch\nliteral 1\n", "a binary file"),
        (b"diff --git a/x b/x\nBinary files a/x and b/x differ\n", "a binary file"),
    ],
)
def test_what_is_no_patch_of_plain_files(root: Path, data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says) as caught:
        apply_patch(data, "p", root)
    assert (caught.value.where or "").partition(":")[0] == "p"


def test_the_end_of_a_file_may_have_no_line_end(root: Path) -> None:
    (root / "x").write_bytes(b"a\nb")
    text = "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n"
    apply_patch(patch(text, old="a/x", new="b/x"), "p", root)
    assert (root / "x").read_bytes() == b"a\nc\n"
    text = "@@ -1,2 +1,2 @@\n a\n-c\n+d\n\\ No newline at end of file\n"
    apply_patch(patch(text, old="a/x", new="b/x"), "p", root)
    assert (root / "x").read_bytes() == b"a\nd"


def test_times_and_modes_stay(root: Path) -> None:
    file = root / "csrc" / "a.cu"
    file.chmod(0o755)
    before = file.stat()
    apply_patch(patch(FIRST), "p", root)
    assert (file.stat().st_mode, file.stat().st_mtime) == (before.st_mode, before.st_mtime)


def git(folder: Path, *words: str) -> bytes:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return done.stdout


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mode & 0o111)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def change(folder: Path, dice: random.Random) -> None:
    """Change files of a folder as people do, and in stranger ways."""
    for path in sorted(folder.rglob("*.txt")):
        lines = path.read_bytes().split(b"\n")
        for _ in range(dice.randrange(4)):
            at = dice.randrange(len(lines) + 1)
            lines[at : at + dice.randrange(3)] = [b"new %d" % dice.randrange(9)] * dice.randrange(3)
        if dice.random() < 0.15:
            path.unlink()
        else:
            path.write_bytes(b"\n".join(lines))
    if dice.random() < 0.5:
        (folder / "made").mkdir(exist_ok=True)
        (folder / "made" / "n.txt").write_bytes(dice.choice([b"", b"x", b"x\n", b"\n\n", b"a\r\n"]))
    for path in sorted(folder.rglob("*.txt")):
        if dice.random() < 0.1:
            path.chmod(0o755)


@pytest.mark.parametrize("seed", range(8))
def test_what_git_diff_writes_applies(
    tmp_path: Path, seed: int, tool: Callable[[str], str]
) -> None:
    """git is the witness: its diff of two trees makes the one of the other."""
    tool("git")
    dice = random.Random(seed)
    old, work = tmp_path / "old", tmp_path / "work"
    work.mkdir()
    for number in range(5):
        lines = [b"%d" % dice.randrange(6) for _ in range(dice.randrange(30))]
        (work / f"{number}.txt").write_bytes(b"\n".join(lines) + dice.choice([b"", b"\n"]))
    git(work, "init", "--quiet")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "x")
    git(tmp_path, "clone", "--quiet", "work", "old")
    change(work, dice)
    git(work, "add", "-A")
    data = git(work, "diff", "--cached", "--no-renames", f"-U{dice.choice([1, 3, 8])}")
    if data:
        apply_patch(data, "p", old)
    assert tree(old) == tree(work)


@pytest.mark.parametrize("seed", range(30))
def test_damage_ends_in_an_error_or_a_change(root: Path, seed: int) -> None:
    dice = random.Random(seed)
    data = bytearray(
        b"diff --git a/csrc/a.cu b/csrc/a.cu\nnew mode 100755\n" + patch(FIRST, SECOND)
    )
    for _ in range(dice.randrange(1, 6)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    with suppress(FatwheelError):  # anything else is a traceback for the user
        apply_patch(bytes(data), "p", root)
    assert {path.name for path in root.parent.iterdir()} == {"p"}


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_diff_makes_and_deletes_files(tmp_path: Path, zone: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, name in ((old, "gone.py"), (new, "made.py")):
        folder.mkdir()
        (folder / name).write_text("x\n")
    words = ["diff", "-urN", "old", "new"]
    said = subprocess.run(words, cwd=tmp_path, env={"TZ": zone}, capture_output=True, check=False)
    apply_patch(said.stdout, "p", old)
    assert [path.name for path in old.iterdir()] == ["made.py"]


@pytest.mark.parametrize(
    "line", ["Binary files a/x.bin and b/x.bin differ", "Only in b/csrc: new.cu"]
)
def test_a_file_whose_lines_diff_leaves_out(root: Path, line: str) -> None:
    for data in (patch(FIRST) + line.encode(), f"{line}\n".encode() + patch(FIRST)):
        with pytest.raises(FormatError, match="its lines are not here"):
            apply_patch(data, "p", root)
    header = b"diff --git a/csrc/a.cu b/csrc/a.cu\n"  # of a mail, which may say so in words
    apply_patch(f"{line}\n".encode() + header + patch(FIRST), "p", root)
