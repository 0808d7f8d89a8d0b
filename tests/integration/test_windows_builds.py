"""Builds for Windows without containers: on a Windows host, and on Linux by fatwheel's own Wine.

Windows is Wine's as well, with Windows' own CPython, for fatwheel as for the project, and NVIDIA's
own nvcc. What stands in is cl.exe and link.exe: see `msvc`. Wine makes no junctions and limits no
memory: of junctions, the hard links that stand in for them are tried.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fatwheel.config.compose import with_device_from
from fatwheel.config.parts import Parts
from fatwheel.config.toolchains import load_toolchain
from fatwheel.errors import FatwheelError
from fatwheel.events import silent
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.unpack import ensure_unpacked, folder_of

from ..conftest import ROOT, missing
from ..helpers.toolchains import shipped_toolchain
from ..helpers.visualstudio import answer, instance
from .conftest import Workbench
from .daskcluster import SOON, Cluster, until
from .debianimage import pinned_packages
from .engine import LentEngine
from .msvc import CL, SDK, TOOLS, base_with_stand_ins, install_msvc
from .windows import PATIENCE, WindowsPython, on_one_core, windows_path
from .windowsbuild import Demo, write_demo
from .windowshost import Host

pytestmark = pytest.mark.slow

CACHE = "C:\\users\\J\u00f6rg M\u00fcller\\fw cache"  # as users of Windows are called
LINUX = "linux-cuda13.0"  # which has the nvcc of the demonstration's toolchain
PLACE = "C:\\b\\windows-demo-1.0"
WINDOWS_OF_WORKERS = str(Path("*/cache", "work", "build-*/builds/*/wine/*/windows"))
# Options and folders that no compiler of a build may see.
USERS = {
    "CL": "/nonsense", "_CL_": "/nonsense", "LINK": "/nonsense", "_LINK_": "/nonsense",
    "NVCC_APPEND_FLAGS": "--nonsense", "INCLUDE": "C:\\none", "LIB": "C:\\none",
    "PYTHONPATH": "C:\\none", "PYTHONHOME": "C:\\none", "TORCH_CUDA_ARCH_LIST": "nonsense",
}  # fmt: skip

# Starts the same build twice on a console of its own. When the first one is at work and the second
# one waits for it, Ctrl-C is pressed there. argv: how each is called.
PRESSES_CTRL_C = """
import ctypes, json, queue, subprocess, sys, threading
kernel = ctypes.WinDLL("kernel32")
assert kernel.FreeConsole() and kernel.AllocConsole()
said = [[], []]
heard = queue.Queue()

def listen(number, stream):
    for line in stream:
        said[number].append(line)
        heard.put((number, line))

def start(number):
    process = subprocess.Popen(
        [sys.executable, *sys.argv[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8")
    threading.Thread(target=listen, args=(number, process.stdout), daemon=True).start()
    return process

def wait_for(words):
    while words not in heard.get(timeout=200)[1]:
        pass

builds = [start(0)]
wait_for("capture")
builds.append(start(1))
wait_for("another build is at work")
kernel.SetConsoleCtrlHandler(None, 1)  # this process itself goes on
assert kernel.GenerateConsoleCtrlEvent(0, 0)
codes = [build.wait(100) for build in builds]
print(json.dumps(dict(codes=codes, said=said)))
"""


@pytest.fixture(scope="module")
def demo(
    windows_python: WindowsPython,
    tool: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Demo:
    for name in ("clang", "lld-link"):
        tool(name)
    gcc = tool("x86_64-w64-mingw32-gcc")
    return write_demo(tmp_path_factory.mktemp("windows-demo"), windows_python, gcc)


@pytest.fixture(scope="module")
def native(host: Host, demo: Demo) -> Path:
    """The wheel that fatwheel makes on Windows."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in USERS.items():
            patch.setitem(host.python.wine.environment, name, value)
        done = host.run(*demo.build("dist-windows"), folder=demo.folder, cache=CACHE)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = demo.folder.glob("dist-windows/*.whl")
    return wheel


@pytest.fixture(scope="module")
def cache(on_disk: Path) -> Path:
    """That of builds on Linux, with the packages that are unpacked here already."""
    cache = on_disk / "cache"
    parts, linux = Parts(ROOT / "toolchains"), shipped_toolchain(LINUX)
    packages = with_device_from(parts, linux, "3.11", "linux-x86_64").device_packages
    try:
        ensure_unpacked(packages, cache_folder(), silent)
    except FatwheelError as error:
        missing(f"no CUDA for Linux: {error}")
    (cache / "packages").mkdir(parents=True)
    for package in packages:
        here = folder_of(package, cache_folder())
        shutil.copytree(here, folder_of(package, cache), copy_function=os.link)
    return cache


def begun(demo: Demo, cache: Path, words: Sequence[str], **variables: str) -> subprocess.Popen[str]:
    """A command of fatwheel on Linux, which has a Wine of its own."""
    with on_one_core():
        return subprocess.Popen(
            [sys.executable, "-m", "fatwheel", *words], cwd=demo.folder, text=True,
            env={**os.environ, **USERS, "PYTHONHOME": "", "PYTHONPATH": str(ROOT),
                 "FATWHEEL_CACHE": str(cache), "WINEPREFIX": str(cache / "nobody's"), **variables},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


def build(
    demo: Demo, cache: Path, out: str, *options: str, engine: str = "process", **variables: str
) -> Path:
    """The wheel that fatwheel makes on Linux, with a Wine of its own."""
    process = begun(demo, cache, [*demo.build(out, engine), *options], **variables)
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, said + errors
    assert not (cache / "nobody's").exists(), "the user's own Wine was used"
    assert not left_in(cache / "wine"), "something of Wine is still running"
    [wheel] = demo.folder.glob(f"{out}/*.whl")
    return wheel


@pytest.fixture(scope="module")
def emulated(demo: Demo, cache: Path) -> Path:
    return build(demo, cache, "dist-linux")


def left_in(folder: Path) -> list[str]:
    """Programs that still run in a Windows below a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("WINEPREFIX", "").startswith(str(folder)):
                found.append(" ".join(process.cmdline()))
    return found


def test_windows_python_imports_what_windows_built(
    native: Path, host: Host, demo: Demo, tmp_path: Path
) -> None:
    assert native.name == "windows_demo-1.0+cu130torch2.11.sm89-cp311-cp311-win_amd64.whl"
    python = host.python
    python.install(native, tmp_path / "site")
    with zipfile.ZipFile(next((demo.folder / "files").glob("nvidia_cuda_runtime-*"))) as wheel:
        wheel.extractall(tmp_path / "cuda")
    dlls = windows_path(tmp_path / "cuda" / "nvidia" / "cu13" / "bin" / "x86_64")
    code = (
        f"import os; os.add_dll_directory({dlls!r}); import windows_demo._C as m; print(m.__doc__)"
    )
    assert python.call(code, tmp_path / "site").strip() == 'it says "hello there"'
    done = host.run("verify", "--import", windows_path(native), folder=demo.folder, cache=CACHE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "import windows_demo: " in done.stdout


def test_linux_makes_the_same_bytes(native: Path, emulated: Path) -> None:
    assert native.name == emulated.name
    assert native.read_bytes() == emulated.read_bytes()


@pytest.mark.long  # workers of clusters, and builds in Wine, have tests of their own
def test_windows_workers_of_a_cluster_make_the_same_bytes_and_one_may_be_killed(
    demo: Demo, cache: Path, emulated: Path, tmp_path: Path, on_disk: Path
) -> None:
    """Each has a Windows of its own. The machine that builds has an empty store; its cache comes
    after the other one, because what stands in for the linker orders imports by their paths."""
    builder = Workbench(on_disk / "machine", tools=cache).cache
    (builder / "wine").symlink_to(cache / "wine")
    cluster = Cluster(tmp_path / "cluster")
    words = [*demo.build("dist-cluster", "dask"), "--scheduler", cluster.address]
    try:
        accepted = {"FATWHEEL_ACCEPT_MSVC_LICENSE": "1"}
        lost = cluster.worker("lost", tools=cache, **accepted)
        process = begun(demo, builder, words)
        until(lambda: jobs_in(lost), "a job runs", process)
        cluster.worker("good", tools=cache, **accepted)
        cluster.kill("lost")
        out, err = process.communicate(timeout=SOON)
        assert process.returncode == 0, out + err
        assert "worker lost was lost" in err
        cluster.kill("good", signal.SIGTERM)
        assert cluster.started["good"].wait(SOON) == 0, cluster.said("good")
        assert not left_in(cluster.folder / "good")
    finally:
        cluster.close()
        for windows in cluster.folder.glob(WINDOWS_OF_WORKERS):  # that of the lost one waits
            own = {**os.environ, "WINEPREFIX": str(windows)}
            subprocess.run(["wineserver", "--kill"], env=own, check=False)
    [wheel] = demo.folder.glob("dist-cluster/*.whl")
    assert wheel.read_bytes() == emulated.read_bytes()


def jobs_in(worker: Path) -> list[Path]:
    """The folders of jobs that run on a worker."""
    inside = "drive_c/b/windows-demo-1.0/scratch/*"
    return list(worker.parent.glob(f"{WINDOWS_OF_WORKERS}/{inside}"))


@pytest.mark.long  # builds in Wine, and builds in containers, are in every run
def test_a_container_with_wine_makes_the_same_bytes(
    demo: Demo, cache: Path, emulated: Path, docker_engine: LentEngine
) -> None:
    """Stores of engines are kept apart, so all of it is made once more."""
    wine = load_toolchain("windows-demo", demo.folder / "toolchains").wine
    assert wine
    for package in pinned_packages(wine.packages, "bookworm"):
        shutil.copy(package, demo.folder / "files")
    base = docker_engine.build("stand-ins", base_with_stand_ins(docker_engine.bases["3.11"]))
    wheel = build(
        demo, cache, "dist-contained", engine="docker", DOCKER_HOST=docker_engine.host,
        FATWHEEL_BASES=f"wine={base}",
    )  # fmt: skip
    assert wheel.read_bytes() == emulated.read_bytes()


@pytest.mark.long  # test_windows_inside compares what both make, and test_divided their programs
def test_compilers_for_linux_make_the_same_device_code(
    demo: Demo, cache: Path, emulated: Path
) -> None:
    wheel = build(demo, cache, "dist-device", "--device-from", "linux")
    assert library_in(wheel) == library_in(emulated)
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("fatwheel.lock.json")]
        lock = json.loads(archive.read(name))
    named = [one["name"] for one in lock["toolchain"]["device_packages"]]
    assert {"nvidia-cuda-nvcc", "nvidia-nvvm"} <= set(named)


# What stands in for vswhere.exe: it prints the file beside it.
VSWHERE = """
#include <stdio.h>
#include <string.h>
#include <windows.h>
int main(int count, char **words) {
    char path[4096];
    int next;
    GetModuleFileNameA(0, path, 4000);
    strcpy(strrchr(path, '.'), ".json");
    FILE *file = fopen(path, "rb");
    if (!file || count < 2) return 87;
    while ((next = fgetc(file)) != EOF) putchar(next);
    return 0;
}
"""


@pytest.fixture
def visual_studio(host: Host, tool: Callable[[str], str], tmp_path: Path) -> None:
    """The stand-ins as Microsoft's installer lays them out, and SDKs elsewhere."""
    gcc = tool("x86_64-w64-mingw32-gcc")
    drive = Path(host.python.wine.environment["WINEPREFIX"], "drive_c")
    install_msvc(tmp_path / "msvc", gcc)
    studio = drive / "Program Files" / "Microsoft Visual Studio" / "2022" / "Build Tools"
    studio.mkdir(parents=True)
    shutil.move(tmp_path / "msvc" / "VC", studio / "VC")
    (studio / TOOLS / "include" / "yvals_core.h").write_text("// no word of CUDA")
    shutil.move(tmp_path / "msvc" / "Windows Kits", drive / "kits")
    key = r"HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows Kits\Installed Roots"
    wanted = ("add", key, "/v", "KitsRoot10", "/d", "C:\\kits\\10\\", "/f")
    assert host.python.wine.run(Path("reg"), *wanted).returncode == 0
    installer = drive / "Program Files (x86)" / "Microsoft Visual Studio" / "Installer"
    installer.mkdir(parents=True)
    folder = "C:\\Program Files\\Microsoft Visual Studio\\2022\\Build Tools"
    said = answer([instance(folder, "17.8.2", "17.8.34322.80")])
    (installer / "vswhere.json").write_text(said, encoding="utf-8")
    source = tmp_path / "vswhere.c"
    source.write_text(VSWHERE, encoding="ascii")
    subprocess.run([gcc, "-o", str(installer / "vswhere.exe"), str(source)], check=True)


@pytest.mark.long  # Wine takes minutes; finding a Visual Studio is tested by itself
@pytest.mark.usefixtures("visual_studio")
def test_an_installed_visual_studio_makes_the_same_library(
    native: Path, host: Host, demo: Demo
) -> None:
    words = [*demo.build("dist-installed"), "--msvc", "installed"]
    done = host.run(*words, folder=demo.folder, cache=CACHE)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = demo.folder.glob("dist-installed/*.whl")
    assert library_in(wheel) == library_in(native)
    done = fatwheel("verify", wheel)
    assert done.returncode == 0, done.stdout + done.stderr
    own = f"MSVC of Visual Studio 17.8.2, Windows SDK {SDK}"
    assert f"built with compilers that one machine had installed ({own})" in done.stdout
    done = fatwheel("rebuild", wheel)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "it cannot be rebuilt elsewhere" in done.stderr
    asked = ("doctor", "--toolchain", "windows-demo", "--msvc", "installed", "--json")
    done = host.run(*asked, folder=demo.folder, cache=CACHE)
    found = {one["name"]: one["found"] for one in json.loads(done.stdout)["checks"]}
    assert found["compiler"].startswith(f"cl {CL}, Windows SDK {SDK} (C:\\Program Files"), found


def fatwheel(verb: str, wheel: Path) -> subprocess.CompletedProcess[str]:
    """On Linux, which reads wheels ten times as fast as Wine."""
    command = [sys.executable, "-m", "fatwheel", verb, str(wheel)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=wheel.parent)


def library_in(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".pyd")]
        return archive.read(name)


def test_ctrl_c_ends_a_build_and_one_that_waits_for_it(
    native: Path, host: Host, demo: Demo
) -> None:
    words = host.words(demo.folder, CACHE, *demo.build("dist-never"), "--arch", "80")
    found = json.loads(last_line_of(host, "-I", "-X", "utf8", "-c", PRESSES_CTRL_C, *words))
    assert found["codes"] == [130, 130], found["said"]
    prefix = Path(host.python.wine.environment["WINEPREFIX"])
    assert not [words for words in left_in(prefix) if PLACE in words]
    assert not (demo.folder / "dist-never").exists()


def last_line_of(host: Host, *words: str) -> str:
    """The JSON that a program of Python ends with. What Wine starts for a console may hold its
    output for minutes after its end, which nobody waits for here."""
    wine = host.python.wine
    with on_one_core():
        process = subprocess.Popen(
            [wine.wine, str(host.python.folder / "python.exe"), *words], env=wine.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace", start_new_session=True,
        )  # fmt: skip
    assert process.stdout
    watch = threading.Timer(PATIENCE, process.kill)
    watch.start()
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if line.startswith("{"):
                return line
    finally:
        watch.cancel()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    raise AssertionError(f"it said no JSON: {''.join(said)}")
