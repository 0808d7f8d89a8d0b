"""An installed CUDA is asked what it is; one that cannot be used is refused with what to do."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.toolchain.installedcuda import InstalledCuda, ask_cuda

from ...helpers.installedcuda import write, write_cuda, write_nvcc

Tool = Callable[[str], str]


@pytest.fixture
def home(tmp_path: Path, tool: Tool) -> Path:
    tool("g++")
    return write_cuda(tmp_path / "cuda", tool)


def digests(cuda: InstalledCuda) -> dict[str, str]:
    return {one.name: one.sha256 for one in cuda.files}


def refusal(home: Path) -> str:
    with pytest.raises(ToolchainError) as caught:
        ask_cuda(home, 1)
    assert caught.value.exit_code == 6
    return str(caught.value)


def test_it_says_what_it_is(home: Path) -> None:
    cuda = ask_cuda(home, 1)
    assert (cuda.cuda, cuda.nvcc, cuda.newest_gcc) == ("13.0", "13.0.61", 99)
    names = [arch.name for arch in cuda.archs]
    assert names == ["80", "90", "90a", "120", "120a", "120f"], "variants as ptxas lists"
    assert cuda.links == (), "a whole CUDA home serves as it is"
    found = digests(cuda)
    for name, place in (("ptxas", "bin/ptxas"), ("cicc", "nvvm/bin/cicc"), ("nvcc", "bin/nvcc")):
        assert found[name] == hashlib.sha256((home / place).read_bytes()).hexdigest(), name
    assert {"cudafe++", "fatbinary", "nvlink", "libdevice.10.bc", "crt"} <= set(found)


@pytest.mark.parametrize(
    ("changed", "file"),
    [
        ("ptxas", "bin/ptxas"),
        ("cicc", "nvvm/bin/cicc"),
        ("libdevice.10.bc", "nvvm/libdevice/libdevice.10.bc"),
        ("nvcc.profile", "bin/nvcc.profile"),
        ("crt", "include/crt/host_runtime.h"),
        ("crt", "include/fatbinary_section.h"),
        ("crt", "bin/crt/link.stub"),
    ],
)
def test_what_decides_code_is_told_apart(home: Path, changed: str, file: str) -> None:
    before = digests(ask_cuda(home, 1))
    text = (home / file).read_text() if file == "bin/ptxas" else ""
    write(home / file, text + "# another\n", program=True)
    after = digests(ask_cuda(home, 1))
    assert {name for name in after if after[name] != before.get(name)} == {changed}


def test_headers_that_texts_tell_of_are_left_to_them(home: Path) -> None:
    before = digests(ask_cuda(home, 1))
    write(home / "include/cuda_runtime.h", "another\n")
    assert digests(ask_cuda(home, 1)) == before


def test_the_packages_of_cuda_get_links(home: Path) -> None:
    shutil.move(home / "lib64", home / "lib")
    (home / "lib/libcudart.so").rename(home / "lib/libcudart.so.13")
    links = dict(ask_cuda(home, 1).links)
    assert links["bin/nvcc"] == home / "bin/nvcc"
    assert links["nvvm"] == home / "nvvm"
    assert links["include"] == home / "include"
    assert links["lib/libcudart.so.13"] == home / "lib/libcudart.so.13"


def test_debians_own(tmp_path: Path, tool: Tool) -> None:
    """Its /usr/bin/nvcc is a script; libraries are in a folder named after the machine."""
    usr = write_cuda(tmp_path / "usr", tool, cuda="12.4", nvcc="lib/nvidia-cuda-toolkit/bin/nvcc")
    shutil.rmtree(usr / "lib64")
    library = write(usr / "lib" / f"{platform.machine()}-linux-gnu" / "libcudart.so")
    write(usr / "bin/nvcc", '#!/bin/sh\nexec /usr/lib/nvidia-cuda-toolkit/bin/nvcc "$@"\n')
    cuda = ask_cuda(usr, 1)
    links = dict(cuda.links)
    assert cuda.cuda == "12.4"
    assert links["bin/nvcc"] == usr / "lib/nvidia-cuda-toolkit/bin/nvcc"
    assert links["lib/libcudart.so"] == library


def test_headers_of_the_system_are_not_named_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As -isystem, g++'s own folder would come before that of the C++ library."""
    monkeypatch.setattr("fatwheel.toolchain.installedcuda._SYSTEMS", home / "include")
    names = {name for name, _ in ask_cuda(home, 1).links}
    assert "bin/nvcc" in names
    assert not {"include", "lib/libcudart.so"} & names


# -- refused ---------------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "none")


def test_no_cuda(tmp_path: Path) -> None:
    said = refusal(tmp_path)
    assert "there is no CUDA here: it has no bin/nvcc" in said
    assert "such as /usr/local/cuda" in said


def test_a_folder_that_build_tools_stumble_over(tmp_path: Path, tool: Tool) -> None:
    said = refusal(write_cuda(tmp_path / "my cuda", tool))
    assert "must not contain a space or a colon" in said


def test_a_script_in_front_of_nvcc(home: Path) -> None:
    write(home / "bin/nvcc", "#!/bin/sh\nexec ccache nvcc\n", program=True)
    said = refusal(home)
    assert "its bin/nvcc is a script, and not NVIDIA's compiler" in said
    assert "ccache" in said


def test_a_link_to_another_program(home: Path) -> None:
    (home / "bin/nvcc").rename(home / "bin/ccache")
    (home / "bin/nvcc").symlink_to("ccache")
    assert f"its bin/nvcc is a link to {home / 'bin/ccache'}" in refusal(home)


@pytest.mark.parametrize(
    "name", ["bin/cudafe++", "bin/ptxas", "bin/fatbinary", "bin/nvlink", "nvvm/bin/cicc"]
)
def test_a_missing_program(home: Path, name: str) -> None:
    (home / name).unlink()
    said = refusal(home)
    assert f"this CUDA is not complete: nvcc finds no {Path(name).name}" in said
    assert "install the whole toolkit" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("include/cuda_runtime.h", "include/cuda_runtime.h"),
        ("include/crt/host_config.h", "crt/host_config.h"),
        ("lib64/libcudart.so", "libcudart.so"),
        ("nvvm/libdevice/libdevice.10.bc", "libdevice"),
    ],
)
def test_a_missing_file(home: Path, name: str, words: str) -> None:
    (home / name).unlink()
    said = refusal(home)
    assert "this CUDA is not complete" in said
    assert words in said


def test_a_header_that_names_no_gcc(home: Path) -> None:
    write(home / "include/crt/host_config.h", "#if 1\n")
    assert "it does not say which g++ this CUDA takes" in refusal(home)


def test_a_header_that_names_an_endless_gcc(home: Path) -> None:
    write(home / "include/crt/host_config.h", f"#if __GNUC__ > {'9' * 5000}\n")
    assert "does not say which g++ this CUDA takes" in refusal(home)


def test_an_nvcc_that_does_not_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fatwheel.toolchain.installedcuda._PATIENCE", 0.2)
    write(home / "bin/nvcc.sh", "exec sleep 60\n")
    assert "does not answer within" in refusal(home)


def test_an_nvcc_whose_child_does_not_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fatwheel.toolchain.installedcuda._PATIENCE", 0.2)
    write(home / "bin/nvcc.sh", "sleep 60 & sleep 60\n")
    assert "does not answer within" in refusal(home)


def test_an_nvcc_that_says_too_much(home: Path) -> None:
    write(home / "bin/nvcc.sh", "exec yes\n")
    assert "its nvcc says more than 1 MiB" in refusal(home)


def test_nvcc_is_started_three_times(home: Path) -> None:
    """On a cluster's disk a start may take seconds."""
    script = home / "bin/nvcc.sh"
    write(script, f'echo "$*" >> {home}/calls\n' + script.read_text())
    ask_cuda(home, 1)
    assert len((home / "calls").read_text().splitlines()) == 3


def test_a_ptxas_that_does_not_work(home: Path) -> None:
    write(home / "bin/ptxas", "#!/bin/sh\nexit 3\n", program=True)
    assert "its ptxas fails: ptxas --help" in refusal(home)


def test_a_name_that_is_too_long() -> None:
    assert "no such folder" in refusal(Path("/tmp", "x" * 5000))


def test_a_gcc_that_is_too_new(home: Path) -> None:
    write(home / "include/crt/host_config.h", "#if __GNUC__ > 4\n")
    said = refusal(home)
    assert "there is no C++ compiler here that CUDA 13.0 works with" in said
    assert "1 to 4 is needed" in said


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo libnvvm.so: cannot open shared object file >&2; exit 127", "cannot open shared"),
        ("echo hello", "does not say which CUDA it is"),
    ],
)
def test_an_nvcc_that_does_not_work(home: Path, script: str, words: str) -> None:
    write(home / "bin/nvcc.sh", script)
    assert words in refusal(home)


def test_variables_of_the_user_change_nothing(
    home: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "--allow-unsupported-compiler")
    write_nvcc(home, tool, "13.0", "bin/nvcc")
    script = home / "bin/nvcc.sh"
    write(script, 'test -z "$NVCC_APPEND_FLAGS" || exit 3\n' + script.read_text())
    assert ask_cuda(home, 1).cuda == "13.0"
