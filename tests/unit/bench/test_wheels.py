"""The benchmark's work on wheels, tried on a wheel of a few kilobytes."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench import wheels
from bench.plainzip import read, repack
from fatwheel.errors import FatwheelError
from fatwheel.events import silent
from fatwheel.wheels.pack import plain_file, write_wheel

DATA = Path(__file__).parents[2] / "data" / "device"
MIB = 1 << 20


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with code for 80 and 90a, in the place of the large one."""
    path = tmp_path / "seed-1.0-py3-none-any.whl"
    texts = {
        "seed/a.fatbin": (DATA / "zstd.fatbin").read_bytes(),
        "seed-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: seed\nVersion: 1.0\n",
        "seed-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
    }
    files = [plain_file(name, data) for name, data in texts.items()]
    write_wheel(path, "seed-1.0.dist-info", files, 0)
    monkeypatch.setattr(wheels, "fetch_subject", lambda name, emit: path)
    return path


def test_every_command_is_measured_beside_zipfile(subject: Path, tmp_path: Path) -> None:
    found = wheels.measure_wheels(tmp_path / "bench", 1, silent)
    assert [item.what for item in found.measurements] == [
        "inspect", "zipfile: read", "thin", "zipfile: the same as thin",
        "stitch", "zipfile: the same as stitch",
    ]  # fmt: skip
    assert all(item.wall > 0 and item.cpu > 0 for item in found.measurements)
    assert all(0 < item.memory < 200 * MIB for item in found.measurements)
    limits = {figure.what: figure.limit for figure in found.figures}
    assert limits == {
        "inspect: wall, of zipfile's": None,
        "inspect: memory": 300_000_000,
        "thin: wall, of zipfile's": 1.5,
        "thin: memory": None,
        "stitch: wall, of zipfile's": 1.5,
        "stitch: memory": None,
    }


def test_a_command_that_fails_is_named(subject: Path, tmp_path: Path) -> None:
    subject.write_bytes(b"no wheel")
    with pytest.raises(FatwheelError, match="was to be measured failed") as caught:
        wheels.measure_wheels(tmp_path / "bench", 1, silent)
    assert "inspect" in str(caught.value.where)
    assert caught.value.details, "what it said"


def test_repacking_leaves_a_wheel_with_the_content(subject: Path, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.joinpath("folder").mkdir(parents=True)
    content.joinpath("folder", "file").write_text("text\n" * 1000)
    new = tmp_path / "new.whl"
    read(subject)
    repack(6, content, new, [subject])
    with zipfile.ZipFile(new) as archive:
        assert archive.read("folder/file") == b"text\n" * 1000
        assert archive.getinfo("folder/file").compress_size < 1000
    assert (tmp_path / "new.0" / "seed" / "a.fatbin").read_bytes() == (
        DATA / "zstd.fatbin"
    ).read_bytes()


def test_memory_is_that_of_the_process_alone(tmp_path: Path) -> None:
    """100 MiB that are held here do not count, 50 MiB that it takes do."""
    (tmp_path / "greedy.py").write_text(f"x = b'x' * {50 * MIB}\nraise SystemExit(3)\n")
    held = b"x" * (100 * MIB)
    command = [sys.executable, "-m", "bench.peak", "memory", "greedy"]
    done = subprocess.run(command, cwd=tmp_path, timeout=300)
    assert done.returncode == 3, "the module's own exit code"
    before, after = map(int, (tmp_path / "memory").read_text().split())
    assert 4 * MIB < before < len(held)
    assert 50 * MIB <= after - before < 60 * MIB
