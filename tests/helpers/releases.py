"""Publishes a CUDA 99.1 and a torch 99.2 in the publishers' own formats, on this machine.

NVIDIA's folder of manifests and archives; the user's index as PEP 691 has it; PyTorch's index as
HTML with the hashes of wheels and of their METADATA (PEP 503, 658). And parts that name them.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from fatwheel.toolchain.pipconfig import PipConfig

from .webserver import Server, body, ranges

CUDA, NVCC, TORCH = "99.1.0", "99.1.5", "99.2.0"
HEADER = """\
#if _MSC_VER < 1940 || _MSC_VER >= 1999
#error -- unsupported Microsoft Visual Studio version!
#elif defined(__GNUC__)
#if __GNUC__ > 21
#error -- unsupported GNU version! gcc versions later than 21 are not supported!
"""
# As ptxas prints it, in part.
PTXAS = """\
#!/bin/sh
cat <<END
--fast-compile <level>                        (-Ofc)
        Allowed values for this option:  '0','max','sm_1'.

--gpu-name <gpu name>                         (-arch)
        Specify name of NVIDIA GPU to generate code for.
        Allowed values for this option:  'compute_90','sm_90','sm_990','sm_990a'.

--help                                        (-h)
END
"""
README = (
    "- A compiler that fully supports C++29, such as clang or gcc (gcc 17.3.0 or newer is required)"
)
PLATFORMS = ("linux-x86_64", "linux-sbsa", "windows-x86_64")
COMPONENTS = {"cuda_nvcc": NVCC, "cuda_cudart": "99.1.2", "cccl": "9.9.9", "libcublas": "99.0.1.2"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(name: str, version: str, members: Mapping[str, str], *metadata: str) -> bytes:
    """A wheel's bytes. metadata: further lines of METADATA; after an empty one, its description."""
    info = f"{name}-{version}.dist-info"
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
        archive.writestr(f"{info}/METADATA", "\n".join([*head, *metadata]) + "\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr(f"{info}/RECORD", "")
    return stream.getvalue()


def metadata_of(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        [name] = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        return archive.read(name)


def archive(component: str, platform: str, members: Mapping[str, str]) -> bytes:
    """An archive as NVIDIA's are: one folder of its own name."""
    top = f"{component}-{platform}-{COMPONENTS[component]}-archive"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        for name, text in {"LICENSE": "none", **members}.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


class Releases:
    """All is published as it should be, until a test changes it. folder: of toolchains."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.parts = folder / "parts"
        self.projects: dict[str, list[dict[str, object]]] = defaultdict(list)
        self.page: list[str] = []  # of torch, at PyTorch
        self._write_parts()
        self.publish_archives()
        self._publish_packages()
        self._publish_torch()

    def _write_parts(self) -> None:
        (self.parts / "images").mkdir(parents=True)
        (self.parts / "publishers.toml").write_text(
            f'cuda = "{self.server.url}/redist"\ntorch = "{self.server.url}/whl"\n'
        )
        (self.parts / "images" / "linux-x86_64.toml").write_text(
            'os = "linux"\ninstaller = "pip==25.3"\n'
            '[[bases]]\nreference = "python:3.11"\npythons = ["3.11", "3.12"]\n'
        )

    def text(self, name: str) -> str:
        """A part as it is written: `cuda/99.1.0`."""
        return (self.parts / f"{name}.toml").read_text(encoding="utf-8")

    # -- NVIDIA

    def publish_archives(self, **changes: bytes) -> None:
        """changes: other contents of archives for Linux on x86-64, by component."""
        document: dict[str, object] = {"release_label": CUDA, "release_product": "cuda"}
        for component, version in COMPONENTS.items():
            table: dict[str, object] = {"name": component, "version": version}
            for platform in PLATFORMS:
                members = {"include/crt/host_config.h": HEADER, "bin/ptxas": PTXAS}
                content = archive(component, platform, members if component == "cuda_nvcc" else {})
                if platform == PLATFORMS[0]:
                    content = changes.get(component, content)
                ending = "zip" if platform.startswith("windows") else "tar.xz"
                path = f"{component}/{platform}/{component}-{platform}-{version}-archive.{ending}"
                self.server.answers[f"/redist/{path}"] = ranges(content)
                table[platform] = {
                    "relative_path": path,
                    "sha256": sha256(content),
                    "md5": "0" * 32,
                    "size": str(len(content)),
                }
            document[component] = table
        document["cuda_gdb"] = {"version": "1", "linux-x86_64": {"relative_path": "not wanted"}}
        self.manifest = document
        self.publish_manifest()

    def publish_manifest(self) -> None:
        name = f"redistrib_{CUDA}.json"
        self.server.serve(f"/redist/{name}", json.dumps(self.manifest).encode())
        page = f"<a href='redistrib_98.9.1.json'>x</a><a href='{name}'>{name}</a>"
        self.server.answers["/redist/"] = body(page.encode(), "text/html")

    # -- the user's index

    def publish(self, file: str, content: bytes, *, metadata: bool = True) -> None:
        """A wheel on the index. metadata: whether its METADATA lies beside it."""
        project = file.partition("-")[0].replace("_", "-")
        entry: dict[str, object] = {
            "filename": file,
            "url": f"/files/{file}",
            "hashes": {"sha256": sha256(content)},
            "size": len(content),
        }
        self.server.answers[f"/files/{file}"] = ranges(content)
        if metadata:
            said = metadata_of(content)
            entry["core-metadata"] = {"sha256": sha256(said)}
            self.server.serve(f"/files/{file}.metadata", said)
        entries = self.projects[project]
        entries[:] = [one for one in entries if one["filename"] != file] + [entry]
        document = {"meta": {"api-version": "1.1"}, "name": project, "files": entries}
        self.server.answers[f"/simple/{project}/"] = body(
            json.dumps(document).encode(), "application/vnd.pypi.simple.v1+json"
        )

    def _publish_packages(self) -> None:
        for name, version in (("ninja", "1.13"), ("packaging", "26.1"), ("wheel", "0.48")):
            self.pure(name, version)
        for version in ("81.0", "82.0"):
            self.pure("setuptools", version)
        self.pure("sympy", "1.14", "Requires-Dist: mpmath<1.4")
        self.pure("mpmath", "1.3")
        self.pure("mpmath", "1.4")
        for python in ("311", "312"):
            for tag in ("manylinux_2_27_x86_64", "manylinux_2_27_aarch64", "win_amd64"):
                file = f"numpy-2.4.6-cp{python}-cp{python}-{tag}.whl"
                self.publish(file, wheel("numpy", "2.4.6", {"numpy/x.py": file}))
        for tag in ("manylinux2014_x86_64", "manylinux2014_aarch64"):
            self.publish_nvidia("cudart-cu99", "9.9", tag)
            self.publish_nvidia("cuda-runtime", "99.1.2", tag)

    def publish_nvidia(self, what: str, version: str, tag: str, **members: str) -> None:
        name = f"nvidia_{what.replace('-', '_')}"
        content = {f"nvidia/{member}": text for member, text in members.items()} or {"x": tag}
        self.publish(f"{name}-{version}-py3-none-{tag}.whl", wheel(name, version, content))

    def pure(self, name: str, version: str, *metadata: str) -> None:
        content = wheel(name, version, {f"{name}.py": version}, *metadata)
        self.publish(f"{name}-{version}-py3-none-any.whl", content)

    def publish_compilers(self) -> None:
        """CUDA 99.1 as packages of the index, too."""
        extras = {
            "nvcc": f"nvidia-cuda-nvcc=={NVCC}.*",
            "crt": "nvidia-cuda-crt==99.1.4.*",
            "cudart": "nvidia-cuda-runtime==99.1.2.*",
            "nvdisasm": "nvidia-cuda-nvdisasm==99.1.3.*",
        }
        lines = [f"Requires-Dist: {what}; extra == '{extra}'" for extra, what in extras.items()]
        lines += [f"Provides-Extra: {extra}" for extra in extras]
        content = wheel("cuda_toolkit", CUDA, {"x": ""}, *lines)
        self.publish(f"cuda_toolkit-{CUDA}-py3-none-any.whl", content)
        for tag in ("manylinux2014_x86_64", "manylinux2014_aarch64"):
            for name, version, members in (
                ("nvcc", NVCC, {"cu99/bin/nvcc": "", "cu99/bin/ptxas": PTXAS}),
                ("crt", "99.1.4", {"cu99/include/crt/host_config.h": HEADER}),
                ("nvdisasm", "99.1.3", {"cu99/bin/nvdisasm": ""}),
            ):
                self.publish_nvidia(f"cuda-{name}", version, tag, **members)

    def publish_for_windows(self) -> None:
        """The packages for Windows, with the headers of two libraries; no archives for Windows."""
        for table in self.manifest.values():
            if isinstance(table, dict):
                table.pop("windows-x86_64", None)
        self.publish_manifest()
        extras = {
            "nvcc": f"nvidia-cuda-nvcc=={NVCC}.*",
            "crt": "nvidia-cuda-crt==99.1.4.*",
            "cudart": "nvidia-cuda-runtime==99.1.2.*",
            "nvdisasm": "nvidia-cuda-nvdisasm==99.1.3.*",
            "cublas": "nvidia-cublas==99.3.*; sys_platform == 'win32' and extra == 'cublas'",
            "nvtx": "nvidia-nvtx==99.4.*",
            "cufft": "nvidia-cufft==99.5.*",
        }
        lines = [
            f"Requires-Dist: {what}"
            if "extra" in what
            else f"Requires-Dist: {what}; extra == '{of}'"
            for of, what in extras.items()
        ]
        lines += [f"Provides-Extra: {extra}" for extra in extras]
        content = wheel("cuda_toolkit", CUDA, {"x": ""}, *lines)
        self.publish(f"cuda_toolkit-{CUDA}-py3-none-any.whl", content)
        for name, version in (
            *(("cuda-nvcc", NVCC), ("cuda-crt", "99.1.4"), ("cuda-runtime", "99.1.2")),
            *(("cuda-nvdisasm", "99.1.3"), ("cublas", "99.3.1"), ("nvtx", "99.4.1")),
        ):
            self.publish_nvidia(name, version, "win_amd64")

    # -- PyTorch's index, and torch on the user's

    def _publish_torch(self) -> None:
        for python in ("311", "312", "312t"):
            abi = f"cp{python.removesuffix('t')}-cp{python}"
            self.publish(
                f"torch-{TORCH}-{abi}-manylinux_2_28_x86_64.whl",
                wheel(
                    *("torch", TORCH, {"torch/x.py": python}),
                    "Requires-Dist: sympy>=1.13",
                    "Requires-Dist: setuptools<82",
                    'Requires-Dist: nvidia-cuda-runtime==99.1.2; platform_system == "Linux"',
                    *("", README),
                ),
            )
            self.publish(
                f"torch-{TORCH}-{abi}-win_amd64.whl",
                wheel("torch", TORCH, {"torch/x.py": "cpu"}, "Requires-Dist: sympy>=1.13"),
            )
            self.publish_theirs(f"torch-{TORCH}+cu988-{abi}-win_amd64.whl")
            self.publish_theirs(f"torch-{TORCH}+cu988-{abi}-manylinux_2_28_aarch64.whl")
        self.publish_theirs(f"torch-{TORCH}+cpu-cp311-cp311-win_amd64.whl")

    def publish_theirs(self, file: str, content: bytes = b"", listed: str = "") -> None:
        """A wheel on PyTorch's index. listed: a sha256 that the page gives instead."""
        version = file.split("-")[1]
        needs = 'nvidia-cudart-cu99==9.9; platform_machine == "aarch64"'
        lines = (
            *("Requires-Dist: sympy>=1.13", "Requires-Dist: setuptools<82"),
            *(f"Requires-Dist: {needs}", "", README),
        )
        content = content or wheel("torch", version, {"torch/x.py": file}, *lines)
        path = f"/whl/cu988/{file.replace('+', '%2B')}"
        said = metadata_of(content)
        self.server.answers[path] = ranges(content)
        self.server.serve(f"{path}.metadata", said)
        self.page[:] = [line for line in self.page if file not in line]
        self.page.append(
            f'<a href="{path}#sha256={listed or sha256(content)}" data-dist-info-metadata='
            f'"sha256={sha256(said)}" data-core-metadata="sha256={sha256(said)}">{file}</a><br/>'
        )
        page = "<!DOCTYPE html><html><body>" + "\n".join(self.page) + "</body></html>"
        self.server.answers["/whl/torch/"] = body(page.encode(), "text/html")


def configure(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Puts a configuration in the place of the user's: this server is the index."""
    config = PipConfig(indexes=(f"{server.url}/simple",), retries=1, timeout=5.0)
    for module in ("pins.lock", "pins.parts", "pins.check", "toolchain.download"):
        monkeypatch.setattr(f"fatwheel.{module}.read_pip_config", lambda: config)
    monkeypatch.setattr("fatwheel.toolchain.web._FIRST_PAUSE", 0.001)
