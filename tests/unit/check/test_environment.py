"""What an environment's own Python says, and Pythons that say nothing of use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.tags import sys_tags

from fatwheel.check import environment
from fatwheel.check.environment import Packages, ask, find_python, find_torch, read_text
from fatwheel.check.subject import read_installed
from fatwheel.errors import UsageError

from ...helpers.environments import LINUX, WINDOWS, install, install_torch, target
from ...helpers.fakecuda import fake_driver


def script(folder: Path, text: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_this_python_takes_the_wheels_that_packaging_says() -> None:
    found = ask(Path(sys.executable))
    assert found.tags == tuple(sys_tags()) or set(found.tags) == set(sys_tags())
    assert found.version == sys.version_info[:3]
    assert str(found.prefix) == sys.prefix


def test_it_is_asked_in_this_folder_and_with_these_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whoever imports there would."""
    (tmp_path / "extra").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "extra"))
    found = ask(Path(sys.executable))
    assert found.path[:2] == (tmp_path, tmp_path / "extra")
    assert not any("fatwheel" in place.name and place.name == "check" for place in found.path)


@pytest.mark.parametrize(
    ("changes", "taken", "refused"),
    [
        ({}, "cp311-cp311-manylinux2014_x86_64", "cp312-cp312-linux_x86_64"),
        ({}, "cp39-abi3-manylinux_2_28_x86_64", "cp311-cp311-win_amd64"),
        ({}, "py3-none-any", "cp311-cp311t-linux_x86_64"),
        ({"libc": ("glibc", "2.26")}, "cp311-none-manylinux_2_17_x86_64",
         "cp311-cp311-manylinux_2_28_x86_64"),
        ({"libc": ("musl", "1.2.4")}, "cp311-cp311-musllinux_1_2_x86_64",
         "cp311-cp311-manylinux2014_x86_64"),
        ({"free_threaded": True, "version": (3, 13, 1)}, "cp313-cp313t-linux_x86_64",
         "cp39-abi3-linux_x86_64"),
        ({"libc": ("glibc", "9" * 50)}, "cp311-cp311-linux_x86_64",
         "cp311-cp311-manylinux_2_28_x86_64"),
        ({"implementation": "pypy", "soabi": "pypy311-pp73", "version": (3, 11, 9)},
         "pp311-pypy311_pp73-linux_x86_64", "cp311-cp311-linux_x86_64"),
    ],
)  # fmt: skip
def test_tags(changes: dict[str, object], taken: str, refused: str) -> None:
    names = {str(tag) for tag in replace(LINUX, **changes).tags}  # type: ignore[arg-type]
    assert taken in names
    assert refused not in names


def test_a_windows_takes_wheels_for_windows() -> None:
    names = [str(tag) for tag in WINDOWS.tags]
    assert names[0] == "cp311-cp311-win_amd64"
    assert not [name for name in names if "linux" in name]


def test_the_python_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = script(tmp_path / "bin", "exit 0")
    assert find_python(str(tmp_path)) == python
    assert find_python(str(python)) == python
    for named in (tmp_path / "none", tmp_path / "bin"):
        with pytest.raises(UsageError):
            find_python(str(named))


@pytest.mark.parametrize(
    "text",
    [
        "exit 3",
        "echo hello",
        'echo "[1, 2]" > "$3"',
        'echo "{}" > "$3"',
        """echo '{"version": ["x", "y", "z"]}' > "$3" """,
        'head -c 5000000 /dev/zero > "$3"',
        "kill -SEGV $$",
    ],
)
def test_what_is_no_python(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a Python that answers"):
        ask(script(tmp_path, text))


def test_a_file_that_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.write_text("text")
    with pytest.raises(UsageError, match="not a Python that answers"):
        ask(path)


def test_a_python_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_PYTHON_SECONDS", 0.5)
    with pytest.raises(UsageError, match="not done after"):
        ask(script(tmp_path, "exec sleep 60"))


# -- the driver ------------------------------------------------------------------------------------


def test_a_driver_and_its_gpu(
    tmp_path: Path, tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_driver(tmp_path / "driver", tool)))
    monkeypatch.setenv("FAKE_CUDA", "12040")
    monkeypatch.setenv("FAKE_CAPABILITY", "89")
    found = ask(Path(sys.executable)).driver
    assert found.cuda == (12, 4)
    assert [(gpu.name, gpu.capability) for gpu in found.gpus] == [("Fake H200", "8.9")]
    assert not found.trouble
    monkeypatch.setenv("FAKE_NO_GPU", "1")
    found = ask(Path(sys.executable)).driver
    assert found.cuda == (12, 4)
    assert found.trouble == "cuInit failed with error 100 (no CUDA-capable device is detected)"


def test_nvidia_smi_says_what_no_library_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = script(tmp_path, 'echo "NVIDIA L4, 8.9, 550.54.14"; echo "odd, line"')
    smi.rename(tmp_path / "nvidia-smi")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = ask(Path(sys.executable)).driver
    if found.cuda:
        pytest.skip("this machine has a driver")
    assert not found.trouble
    assert found.version == "550.54.14"
    assert [(gpu.name, gpu.capability) for gpu in found.gpus] == [("NVIDIA L4", "8.9")]


def test_a_driver_that_crashes_is_a_finding(
    tmp_path: Path, tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "cuda.c"
    source.write_text("#include <stdlib.h>\nint cuDriverGetVersion(int *v) { abort(); }\n")
    library = str(tmp_path / "libcuda.so.1")
    subprocess.run([tool("gcc"), "-shared", "-fPIC", str(source), "-o", library], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = ask(Path(sys.executable)).driver
    assert found.trouble == "asking it failed: ended by SIGABRT"


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
