"""Values filled into a toolchain's file: what is added, what stays, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.errors import ConfigError
from fatwheel.pins.lock import LockFile, filled

SHA = "ab" * 32
TEXT = """\
# what this is
name = "demo"

[[cuda_files]]   # the compiler
name = "cuda_nvcc"
url = "https://host/cuda_nvcc-1.zip"  # from NVIDIA

# the next
[[cuda_files]]
name = "cuda_cudart"
url = "https://host/cuda_cudart-1.zip"
size = 5

  [containers]
  os = "linux"

  [[containers.bases]]
  reference = "python:3.11-bookworm"
"""


def test_lines_are_added_behind_their_neighbours_and_all_else_stays() -> None:
    text = filled(TEXT, ("cuda_files", 0), {"size": 7, "sha256": SHA})
    assert text == TEXT.replace(
        "  # from NVIDIA\n", f'  # from NVIDIA\nsize = 7\nsha256 = "{SHA}"\n'
    )


def test_one_value_beside_the_other() -> None:
    text = filled(TEXT, ("cuda_files", 1), {"sha256": SHA})
    assert text == TEXT.replace("size = 5\n", f'size = 5\nsha256 = "{SHA}"\n')


def test_lines_are_indented_as_their_neighbours() -> None:
    text = filled(TEXT, ("containers", "bases", 0), {"digest": f"sha256:{SHA}"})
    assert text == TEXT + f'  digest = "sha256:{SHA}"\n'


def test_line_ends_of_windows_and_a_byte_order_mark_stay() -> None:
    windows = "\ufeff" + TEXT.replace("\n", "\r\n")
    text = filled(windows, ("cuda_files", 1), {"sha256": SHA})
    assert text == windows.replace("size = 5\r\n", f'size = 5\r\nsha256 = "{SHA}"\r\n')


def test_a_last_line_without_an_end() -> None:
    text = filled(TEXT.rstrip("\n"), ("containers", "bases", 0), {"digest": "x"})
    assert text == TEXT + '  digest = "x"'


def test_dotted_keys_and_tables_in_other_order() -> None:
    text = 'msvc.catalogue.url = "https://host/vs.exe"\nmsvc.cl = "1"\n'
    # A line `size = …` there would belong to the root.
    assert filled(text, ("msvc", "catalogue"), {"size": 1}) is None


@pytest.mark.parametrize(
    "text",
    [
        'cuda_files = [ { name = "a", url = "https://host/a.zip" } ]\n',
        'cuda_files = [\n  { name = "a", url = "https://host/a.zip" },\n]\n',
        '[[cuda_files]]\nname = "a"\nurl = """\\\n  https://host/a.zip"""\n',
    ],
)
def test_what_cannot_be_added_to_is_left_alone(text: str, tmp_path: Path) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(text)
    lock = LockFile(file)
    with pytest.raises(ConfigError) as caught:
        lock.fill(("cuda_files", 0), {"size": 7, "sha256": SHA})
    assert caught.value.details == (f'cuda_files[0]: size = 7, sha256 = "{SHA}"',)
    assert file.read_text() == text
    assert not lock.written


def test_one_after_the_other(tmp_path: Path) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(TEXT)
    lock = LockFile(file)
    lock.fill(("cuda_files", 1), {"sha256": SHA})
    lock.fill(("cuda_files", 0), {"size": 7})
    assert lock.written
    assert file.read_text() == TEXT.replace("size = 5\n", f'size = 5\nsha256 = "{SHA}"\n').replace(
        "# from NVIDIA\n", "# from NVIDIA\nsize = 7\n"
    )
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_somebody_else_changed_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(TEXT)
    lock = LockFile(file)
    file.write_text(TEXT + "# mine\n")
    with pytest.raises(ConfigError, match="changed meanwhile"):
        lock.fill(("cuda_files", 0), {"size": 7})
    assert file.read_text() == TEXT + "# mine\n"


def test_an_installed_file_is_copied_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "data" / "toolchains" / "demo.toml"
    installed.parent.mkdir(parents=True)
    installed.write_text(TEXT)
    monkeypatch.setattr("fatwheel.shipped._DATA", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    lock = LockFile(installed)
    lock.fill(("cuda_files", 1), {"sha256": SHA})
    lock.fill(("cuda_files", 0), {"size": 7})
    assert installed.read_text() == TEXT
    assert lock.path == Path("toolchains", "demo.toml")
    assert lock.path.read_text().count("size = 7\n") == 1
    with pytest.raises(ConfigError, match="appeared meanwhile"):
        LockFile(installed).fill(("cuda_files", 0), {"size": 8})
    assert lock.path.read_text().count("size = 8\n") == 0
    part = LockFile(installed, Path("parts", "msvc"))
    part.fill(("cuda_files", 0), {"size": 7})
    assert part.path == Path("toolchains", "parts", "msvc", "demo.toml")


def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(TEXT)

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fatwheel.storage.files.sync_file", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        LockFile(file).fill(("cuda_files", 0), {"size": 7})
    assert file.read_text() == TEXT
    assert list(tmp_path.iterdir()) == [file]
