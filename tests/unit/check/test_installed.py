"""Packages of an environment by the files beside them, sound and hostile ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fatwheel.check.installed import Packages, read_text
from fatwheel.check.subject import read_installed
from fatwheel.check.torch import find_torch

from ...helpers.environments import install, install_torch, target


def test_names_are_normal_and_the_first_copy_counts(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    install(one, "Flash_Attn", "2.8.3")
    install(two, "flash_attn", "2.7.0")
    install(two, "other", "1.0")
    packages = Packages((one, two, tmp_path / "none"))
    for name in ("flash-attn", "flash_attn", "FLASH.ATTN"):
        found = packages.find(name)
        assert found
        assert (found.name, found.version, found.site) == ("flash-attn", "2.8.3", one)
    assert [copy.version for copy in packages.copies("flash-attn")] == ["2.8.3", "2.7.0"]
    assert {found.name for found in packages} == {"flash-attn", "other"}


def test_names_that_may_have_been_meant(tmp_path: Path) -> None:
    install(tmp_path, "torchvision", "1.0")
    install(tmp_path, "mypy", "1.0")
    packages = Packages((tmp_path,))
    assert packages.near("torchvison") == ("torchvision",)
    assert packages.near("numpy") == ()


def test_a_module_leads_to_its_package(tmp_path: Path) -> None:
    install(tmp_path, "opencv-python", "4.0", {"cv2/__init__.py": b""})
    install(tmp_path, "flash_attn", "2.0", {"flash_attn_2_cuda.cpython-311.so": b""})
    packages = Packages((tmp_path,))
    for module, name in (("cv2", "opencv-python"), ("flash_attn_2_cuda", "flash-attn")):
        found = packages.bringing(module)
        assert found
        assert found.name == name
    assert packages.bringing("cv") is None


def test_a_record_leads_nowhere_else(tmp_path: Path) -> None:
    info = install(tmp_path / "site", "demo", "1.0")
    rows = [
        "../../bin/demo,,",
        "/etc/passwd,,",
        "..\\x,,",
        "a/../../x,,",
        "demo/a.py,,",
        '"bad',
        "\0,,",
    ]
    (info / "RECORD").write_text("\n".join(rows))
    found = Packages((tmp_path / "site",)).find("demo")
    assert found
    assert set(found.files or ()) <= {"demo/a.py", "\0"}
    read_installed(found)


def test_damaged_metadata_is_none(tmp_path: Path) -> None:
    for number, name in enumerate(("METADATA", "RECORD", "WHEEL")):
        info = install(tmp_path, f"demo{number}", "1.0")
        (info / name).unlink()
        os.mkfifo(info / name)
    for found in Packages((tmp_path,)):
        read_installed(found)
    demo = Packages((tmp_path,)).find("demo0")
    assert demo
    assert demo.metadata is None


def test_text_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"x" * 100)
    assert read_text(tmp_path / "text", 99) is None
    assert read_text(tmp_path / "text", 100) == b"x" * 100
    assert read_text(tmp_path) is None
    assert read_text(tmp_path / "a\0b") is None


def test_a_folder_that_cannot_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may list every folder: the system's answer is put in its place."""

    def refuse(folder: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    assert Packages((tmp_path,)).unreadable == {tmp_path: "Permission denied"}


def test_what_a_wheel_s_version_says_it_was_built_for(tmp_path: Path) -> None:
    for name, version, metadata, built in (
        ("one", "2.8.3+cu128torch2.8cxx11abitrue", "", ("12.8", "2.8")),
        ("two", "1.0+cu130torch2.11.sm89", "", ("13.0", "2.11")),
        ("three", "1.0", "Requires-Dist: torch ==2.5.1\n", ("", "2.5")),
        ("four", "1.0", "Requires-Dist: torch >=2.5\n", ("", "")),
        ("five", "1.0", "Requires-Dist: torch (((\n" * 3, ("", "")),
    ):
        install(tmp_path, name, version, metadata=metadata)
        found = Packages((tmp_path,)).find(name)
        assert found
        assert read_installed(found).built == built


# -- torch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version", "cuda"),
    [
        ("__version__ = '2.11.0+cu130'\ncuda: Optional[str] = '13.0'\n", "2.11.0+cu130", "13.0"),
        ("__version__ = '2.5.1+cpu'\ncuda = None\n", "2.5.1+cpu", ""),
        ('__version__: str = "2.1.0"\ncuda = "12.1"\n', "2.1.0", "12.1"),
        ("import os\n__version__ = os.popen('x').read()\n", "1.2", ""),
        ("__version__ = '" + "1" * 500 + "'\n", "1.2", ""),
        ("\xff" * 100, "1.2", ""),
    ],
)
def test_torch_is_read_and_not_run(tmp_path: Path, text: str, version: str, cuda: str) -> None:
    install(tmp_path, "torch", "1.2", {"torch/__init__.py": b"", "torch/version.py": text.encode()})
    found = find_torch(target(tmp_path), Packages((tmp_path,)))
    assert found
    assert (found.version, found.cuda) == (version, cuda)


def test_the_first_torch_on_the_path_counts(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "torch").mkdir(parents=True)  # a folder is no package while there is one
    install_torch(two)
    found = find_torch(target(one, two), Packages((one, two)))
    assert found
    assert found.folder == two / "torch"
    assert find_torch(target(one), Packages((one,))) is None
