"""Images on a real Docker Engine: small ones of stand-in wheels, and one of the real toolchain."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fatwheel.arch import Arch
from fatwheel.config.pinned import Download, Package
from fatwheel.config.toolchain import Base, Containers, LockedInterpreter, Toolchain, TorchBuild
from fatwheel.containers import render
from fatwheel.containers.contexts import VARIABLE
from fatwheel.containers.imagebuild import ContainerImage, ensure_images
from fatwheel.containers.render import FILES
from fatwheel.errors import EngineError, FatwheelError, ToolchainError
from fatwheel.events import Event, Note, Progress, silent
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.fetch import fetch, place

from ..conftest import missing
from ..helpers.tinywheels import NVCC, nvcc_wheel, torch_wheel, write_wheel
from ..helpers.toolchains import shipped_toolchain
from .conftest import Contained
from .engine import LentEngine

LINUX = shipped_toolchain("linux-cuda13.0")
TORCH = "__version__ = '2.11.0+cu130'\n"


class Small:
    """A toolchain of stand-in wheels that becomes images in seconds.

    name: another for each module, as their tests look for all images of it, and delete them.
    """

    def __init__(
        self, lent: LentEngine, folder: Path, patch: pytest.MonkeyPatch, name: str = "small-test"
    ) -> None:
        self.lent = lent
        self.name = name
        self.cache = folder / "cache"
        self.wheels = folder / "wheels"
        self.events: list[Event] = []
        self._patch = patch
        self.base(lent.bases["3.11"])

    def base(self, image: str | None) -> None:
        """Build on this image, or on the toolchain's own base."""
        if image is None:
            self._patch.delenv(VARIABLE, raising=False)
        else:
            self._patch.setenv(VARIABLE, f"3.11={image}")

    def toolchain(self, torch: str = TORCH, reference: str = "nowhere.invalid/base") -> Toolchain:
        """Its torch is made of this code; each test has files of its own, so nothing is there."""
        wheel = torch_wheel(self.wheels, f"{torch}# {self.cache}\n")
        extension = {"torch/utils/__init__.py": "", "torch/utils/cpp_extension.py": ""}
        more = write_wheel(self.wheels, "torch_utils", "1.0", extension)
        setuptools = write_wheel(
            self.wheels, "setuptools", "1.0", {"setuptools/__init__.py": ""}, role="build"
        )
        nvcc = nvcc_wheel(self.wheels, f"{NVCC}# {self.cache}\n")
        packages = (nvcc, setuptools, self._pip())
        for package in (*packages, wheel, more):
            target = place(package, self.cache / FILES)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.wheels / package.filename, target)
        base = Base(reference, "sha256:" + "1" * 64, ("3.11",))
        return Toolchain(
            name=self.name,
            platform="linux-x86_64",
            cuda="13.0",
            nvcc="13.0.88",
            archs=(Arch(80),),
            gcc=(1, 99),
            packages=packages,
            builds=(TorchBuild("2.11.0", "3.11", (wheel, more)),),
            digest="0" * 64,
            default_torch="2.11.0",
            containers=Containers("linux", 0, (base,)),
        )

    def of_archives(self) -> Toolchain:
        """The same with its compiler and its Python in archives."""
        toolchain = self.toolchain()
        nvcc = f"{NVCC}# {self.cache}\n"
        cuda = self._archive(
            "cuda_nvcc-linux-x86_64-13.0.88-archive",
            "cuda_nvcc-linux-x86_64-13.0.88-archive.tar.xz",
            {
                "LICENSE": "a licence",
                "bin/nvcc": nvcc,
                "bin/ptxas": "",
                "nvvm/bin/cicc": "",
                "include/a.h": "",
                "lib/libx.so.1": "",
            },
        )
        # The base's own Python, so that there is one that runs there.
        run = '#!/bin/sh\nexec /usr/bin/python3.11 "$@"\n'
        python = self._archive("python", "cpython.tar.gz", {"bin/python3.11": run})
        version = inside(self.lent, self.lent.bases["3.11"], "python3.11", "--version").split()[1]
        python = dataclasses.replace(python, version=version)
        return dataclasses.replace(
            toolchain,
            packages=tuple(p for p in toolchain.packages if p.role != "compiler"),
            cuda_files=(cuda,),
            interpreters=(LockedInterpreter("3.11", python),),
        )

    def _archive(self, top: str, filename: str, members: dict[str, str]) -> Download:
        path = self.wheels / filename
        with tarfile.open(path, f"w:{path.suffix[1:]}") as archive:
            for name, text in members.items():
                info = tarfile.TarInfo(f"{top}/{name}")
                info.size, info.mode = len(text.encode()), 0o755
                archive.addfile(info, io.BytesIO(text.encode()))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        made = Download(top, "1", "", filename, path.stat().st_size, digest)
        target = place(made, self.cache / FILES)
        target.parent.mkdir(parents=True)
        shutil.copyfile(path, target)
        return made

    def _pip(self) -> Package:
        [pip] = [package for package in LINUX.packages if package.role == "installer"]
        try:
            [path] = fetch([pip], cache_folder() / FILES, silent)
        except FatwheelError as error:
            missing(f"no pip to install with: {error}")
        shutil.copyfile(path, self.wheels / pip.filename)
        return pip

    def images(
        self, toolchain: Toolchain, emit: Callable[[Event], None] = silent
    ) -> list[ContainerImage]:
        engine = self.lent.connect()
        return ensure_images(engine, toolchain, "3.11", "2.11.0", self.cache, emit)

    def log(self, kind: str) -> str:
        [path] = (self.cache / "logs" / "images").glob(f"*-{kind}-*.log")
        return path.read_text()


@pytest.fixture
def small(
    docker_engine: LentEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Small]:
    yield Small(docker_engine, tmp_path, monkeypatch)
    client: Any = docker_engine.client()
    for image in client.images(name="fatwheel/small-test"):
        for tag in image["RepoTags"]:
            client.remove_image(tag, force=True)


def inside(lent: LentEngine, image: str, *command: str) -> str:
    """What a command prints in a container that may do next to nothing."""
    client = lent.client()
    host = client.create_host_config(
        network_mode="none", read_only=True, cap_drop=["ALL"], auto_remove=False
    )
    made = client.create_container(image, list(command), user="65534:65534", host_config=host)
    try:
        client.start(made["Id"])
        code = client.wait(made["Id"])["StatusCode"]
        said = client.logs(made["Id"]).decode()
    finally:
        client.remove_container(made["Id"], force=True)
    assert code == 0, f"{command} ended with {code}:\n{said}"
    return str(said)


def changed(lent: LentEngine, name: str, command: str) -> str:
    """The base for Python 3.11 after a command; its tag."""
    text = f"FROM {lent.bases['3.11']}\nRUN {command}\n".encode()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return lent.build(name, stream.getvalue())


# -- small ones ----------------------------------------------------------------------------------


def test_both_images_are_made_and_then_they_are_there(small: Small) -> None:
    toolchain = small.toolchain()
    events: list[Event] = []
    first = small.images(toolchain, events.append)
    assert [image.built for image in first] == [True, True]
    assert [(image.kind, image.tag) for image in small.images(toolchain)] == [
        (image.kind, image.tag) for image in first
    ]
    assert [image.built for image in small.images(toolchain)] == [False, False]
    client: Any = small.lent.client()
    for image in first:
        found = client.inspect_image(image.tag)
        assert (found["Id"], found["Size"]) == (image.id, image.size)
        assert "fatwheel" in found["Config"]["Labels"]
    done = [event for event in events if isinstance(event, Progress) and event.label == "image"]
    assert done[-1].done == done[-1].total > 0
    assert any(isinstance(e, Note) and "small-test" in e.text for e in events)


def test_what_an_image_says_of_itself_is_true(small: Small) -> None:
    tag = small.images(small.toolchain())[-1].tag
    found = json.loads(inside(small.lent, tag, "cat", "/opt/fatwheel/environment.json"))
    environment = found["environment"]
    python = environment["python"]
    assert python == "/opt/fatwheel/env/bin/python"
    asked = "import sys, sysconfig as s; print(sys.prefix, s.get_path('purelib'), sys.version)"
    prefix, site, version, *_ = inside(small.lent, tag, python, "-I", "-c", asked).split()
    assert (environment["root"], environment["site"]) == (prefix, site)
    assert environment["python_version"] == version
    inside(small.lent, tag, "test", "-f", f"{environment['include']}/Python.h")
    nvcc = inside(small.lent, tag, f"{environment['cuda_home']}/bin/nvcc", "--version")
    assert "V13.0.88" in nvcc
    assert "gcc version" in inside(small.lent, tag, found["cxx"], "-v")
    # Every installed file has one time: find is not ours.
    late = inside(
        small.lent, tag, "find", site, "-type", "f", "-newermt", "2020-01-02",
        "-not", "-name", "*.pyc", "-not", "-path", "*/stubs/*",
    )  # fmt: skip
    assert late == ""
    inside(small.lent, tag, "test", "-e", f"{environment['cuda_home']}/lib64/libcudart.so")


def test_a_toolchain_of_archives(small: Small) -> None:
    """As linux-cuda12.3 is; its Python is a way to the base's, and its nvcc is a script."""
    toolchain = small.of_archives()
    first, last = small.images(toolchain)
    found = json.loads(inside(small.lent, last.tag, "cat", "/opt/fatwheel/environment.json"))
    assert found["environment"]["cuda_home"] == "/opt/fatwheel/cuda-of-archives"
    nvcc = inside(small.lent, last.tag, "/opt/fatwheel/cuda-of-archives/bin/nvcc", "--version")
    assert "V13.0.88" in nvcc
    torch = inside(small.lent, last.tag, "/opt/fatwheel/env/bin/python", "-c", "import torch")
    assert torch == ""
    # The archives themselves are left behind.
    names = inside(small.lent, first.tag, "ls", "/opt/fatwheel").split()
    assert sorted(names) == ["cuda-of-archives", "provision", "python3.11"]
    inside(small.lent, last.tag, "test", "-f", "/opt/fatwheel/cuda-of-archives/lib64/libx.so.1")


def test_a_torch_that_is_another_stops_the_build(small: Small) -> None:
    toolchain = small.toolchain("__version__ = '2.10.0'\n")
    with pytest.raises(EngineError, match="exited with code 1") as caught:
        small.images(toolchain)
    text = "\n".join(caught.value.details)
    assert "the installed torch is 2.10.0, and the toolchain says 2.11.0" in text
    assert "full log: " in text
    assert "the installed torch is 2.10.0" in small.log("torch2.11.0")
    with pytest.raises(EngineError):
        small.images(toolchain)


def test_a_wheel_that_is_another_stops_the_build(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that came past our own checks: pip compares the hashes again."""
    toolchain = small.toolchain()
    [build] = toolchain.builds
    other = write_wheel(small.wheels / "other", "torch_utils", "1.0", {"x.py": ""})
    wrong = dataclasses.replace(other, sha256="a" * 64, size=other.size)
    target = place(wrong, small.cache / FILES)
    target.parent.mkdir(parents=True)
    shutil.copyfile(small.wheels / "other" / wrong.filename, target)
    builds = (dataclasses.replace(build, packages=(build.packages[0], wrong)),)
    monkeypatch.setattr(
        render, "fetch", lambda files, folder, emit: [place(file, folder) for file in files]
    )
    with pytest.raises(EngineError) as caught:
        small.images(dataclasses.replace(toolchain, builds=builds))
    assert "DO NOT MATCH THE HASHES" in "\n".join(caught.value.details)


def test_what_was_interrupted_goes_on_from_where_it_was(small: Small) -> None:
    # The env image's last step takes a while: it tries the compiler.
    slow = "printf '#!/bin/sh\\nsleep 1\\nexec /usr/bin/g++-real \"$@\"\\n' > /usr/bin/g++"
    command = f"mv /usr/bin/g++ /usr/bin/g++-real && {slow} && chmod +x /usr/bin/g++"
    small.base(changed(small.lent, "slow-compiler", command))

    class Enough(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, Note) and event.text.startswith("building the image"):
            built.append(event)
        # The env image's wheels are installed (each step counts whole bytes), its last step begins.
        progress = isinstance(event, Progress) and event.label == "image"
        if len(built) == 2 and progress and event.total - event.done <= 2:
            raise Enough

    built: list[Event] = []
    toolchain = small.toolchain()
    with pytest.raises(Enough):
        small.images(toolchain, stop)
    first, last = small.images(toolchain)
    assert (first.built, last.built) == (False, True)
    log = small.log("torch2.11.0")
    assert log.count("Using cache") >= 2, f"nothing was taken over:\n{log}"


def test_a_base_without_a_compiler(small: Small) -> None:
    small.base(changed(small.lent, "no-compiler", "rm -f /usr/bin/*g++* /usr/bin/c++*"))
    with pytest.raises(EngineError) as caught:
        small.images(small.toolchain())
    text = "\n".join(caught.value.details)
    assert "there is no C++ compiler here that CUDA 13.0 works with" in text
    assert "apt install g++" in text
    assert "step " in str(caught.value.where)


def test_a_base_without_header_files(small: Small) -> None:
    small.base(changed(small.lent, "no-headers", "rm /usr/include/python3.11/Python.h"))
    with pytest.raises(EngineError) as caught:
        small.images(small.toolchain())
    text = "\n".join(caught.value.details)
    assert "the base image has Python 3.11 without its header files" in text
    assert "python3.11-dev" in text


def test_a_base_without_that_python(small: Small) -> None:
    small.base(changed(small.lent, "no-python", "rm /usr/bin/python3*"))
    with pytest.raises(EngineError) as caught:
        small.images(small.toolchain())
    assert "the base image has no python3.11 on its PATH" in "\n".join(caught.value.details)


def test_a_base_that_cannot_be_fetched(small: Small) -> None:
    small.base(None)
    with pytest.raises(EngineError, match="can neither find nor fetch the base image") as caught:
        small.images(small.toolchain(reference="nowhere.invalid/base:1"))
    assert "nowhere.invalid" in str(caught.value)
    assert VARIABLE in str(caught.value.hint)


def test_a_base_that_the_engine_lacks(small: Small) -> None:
    small.base("fatwheel-test/absent:1")
    with pytest.raises(EngineError, match="image not found: fatwheel-test/absent:1"):
        small.images(small.toolchain())


def committed(lent: LentEngine, name: str, *changes: str) -> str:
    """The base for Python 3.11 with other settings, as `docker commit --change` makes it."""
    client: Any = lent.client()
    made = client.create_container(lent.bases["3.11"], ["true"])
    try:
        client.commit(made["Id"], f"fatwheel-test/{name}", "latest", changes=list(changes))
    finally:
        client.remove_container(made["Id"], force=True)
    return f"fatwheel-test/{name}:latest"


def test_a_base_whose_triggers_would_act_on_the_build(small: Small) -> None:
    """It is refused before anything is fetched, sent or built."""
    small.base(committed(small.lent, "onbuild", "ONBUILD ADD http://nowhere.invalid/x /x"))
    events: list[Event] = []
    with pytest.raises(ToolchainError) as caught:
        small.images(small.toolchain(), events.append)
    assert caught.value.details == ("ONBUILD ADD http://nowhere.invalid/x /x",)
    assert not any(isinstance(event, Progress) for event in events)
    assert not (small.cache / "logs" / "images").exists()
    client: Any = small.lent.client()
    assert client.images(name="fatwheel/small-test") == []


def test_a_base_with_usual_settings(small: Small) -> None:
    """Settings that every base has are no reason to refuse it."""
    changes = ("ENV A=b", "WORKDIR /tmp", "LABEL a=b", 'CMD ["sh"]', 'ENTRYPOINT ["/bin/true"]')
    small.base(committed(small.lent, "usual", *changes))
    assert [image.built for image in small.images(small.toolchain())] == [True, True]


# -- the real one --------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
def test_the_real_toolchain(contained_selftest: Contained) -> None:
    lent = contained_selftest.lent
    done = contained_selftest.bench.invoke(
        "image", "--toolchain", "linux-cuda13.0", "--python", "3.11", "--json", **lent.variables
    )
    assert done.code == 0, done.err
    *_, env = json.loads(done.out)["images"]

    described = inside(lent, env["tag"], "cat", "/opt/fatwheel/environment.json")
    environment = json.loads(described)["environment"]
    python, cuda_home = environment["python"], environment["cuda_home"]
    version = inside(lent, env["tag"], f"{cuda_home}/bin/nvcc", "--version")
    assert f"V{LINUX.nvcc}" in version
    code = "import torch; print(torch.__version__, torch.version.cuda)"
    said = inside(lent, env["tag"], python, "-I", "-c", code)
    assert said.split() == ["2.11.0+cu130", "13.0"]
    # pip judges whether all that packages need is there.
    [pip] = [package for package in LINUX.packages if package.role == "installer"]
    check = (python, "-I", f"/opt/fatwheel/files/{pip.filename}/pip", "check")
    assert "No broken requirements found." in inside(lent, env["tag"], *check)
