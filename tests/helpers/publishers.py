"""A toolchain whose files, index and images are all published by a server on this machine."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fatwheel.toolchain.pipconfig import PipConfig

from .webserver import Server, body

NVCC, CUDART = b"nvcc archive", b"cudart archive"
PYTHON, TORCH, NINJA = b"an interpreter", b"torch wheel", b"ninja wheel"
NVCC_FILE, CUDART_FILE = "cuda_nvcc-12.3.107-archive.tar.xz", "cuda_cudart-12.3.101-archive.tar.xz"
PYTHON_FILE = "cpython-3.11.9.tar.gz"
TORCH_FILE = "torch-2.1.1+cu121-cp311-cp311-linux_x86_64.whl"
NINJA_FILE = "ninja-1.13.0-py3-none-any.whl"
DIGEST = f"sha256:{'d' * 64}"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Publishers:
    """Everything is published as it should be, until a test changes it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.file = folder / "demo.toml"
        self.downloads = folder / "downloads"
        self.image = f"{server.url.removeprefix('http://')}/demo/base:1"
        server.serve(f"/redist/{NVCC_FILE}", NVCC)
        server.serve(f"/redist/{CUDART_FILE}", CUDART)
        server.serve(f"/python/{PYTHON_FILE}", PYTHON)
        server.serve("/whl/cu121/" + TORCH_FILE.replace("+", "%2B"), TORCH)
        self.publish_manifest()
        self.publish_page(f"#sha256={sha256(TORCH)}")
        self.publish_index(sha256(NINJA))
        self.publish_image(DIGEST)

    def publish_manifest(self, nvcc: bytes = NVCC) -> None:
        parts = {NVCC_FILE: nvcc, CUDART_FILE: CUDART}
        document = {
            name: {
                "linux-x86_64": {
                    "relative_path": name,
                    "sha256": sha256(content),
                    "size": str(len(content)),
                }
            }
            for name, content in parts.items()
        }
        self.server.serve("/redist/redistrib_12.3.2.json", json.dumps(document).encode())

    def publish_page(self, fragment: str) -> None:
        quoted = TORCH_FILE.replace("+", "%2B")
        page = f'<a href="/whl/cu121/{quoted}{fragment}">{TORCH_FILE}</a>'
        self.server.answers["/whl/cu121/torch/"] = body(page.encode(), "text/html")

    def publish_index(self, digest: str) -> None:
        page = f'<a href="/files/{NINJA_FILE}#sha256={digest}">{NINJA_FILE}</a>'
        self.server.answers["/simple/ninja/"] = body(page.encode(), "text/html")

    def publish_image(self, digest: str) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Docker-Content-Digest", digest)
            handler.end_headers()

        self.server.answers["/v2/demo/base/manifests/1"] = answer

    def write(self, **pins: str) -> str:
        """The toolchain's file, with more lines for `nvcc`, `cudart`, `python`, `torch`, `base`."""
        url = self.server.url
        text = f"""\
# A toolchain for trying things out.
name = "demo"
platform = "linux-x86_64"
cuda = "12.3"
nvcc = "12.3.107"
archs = ["80"]
gcc = [9, 12]
cuda_manifest = "{url}/redist/redistrib_12.3.2.json"

[containers]
os = "linux"

[[containers.bases]]
reference = "{self.image}"
{pins.get("base", "")}
[[cuda_files]] # the compiler
name = "cuda_nvcc"
version = "12.3.107"
url = "{url}/redist/{NVCC_FILE}"
{pins.get("nvcc", "")}
[[cuda_files]]
name = "cuda_cudart"
version = "12.3.101"
url = "{url}/redist/{CUDART_FILE}"
{pins.get("cudart", "")}
[[interpreters]]
python = "3.11"
version = "3.11.9"
url = "{url}/python/{PYTHON_FILE}"
{pins.get("python", "")}
[[packages]]
name = "ninja"
version = "1.13.0"
file = "{NINJA_FILE}"
size = {len(NINJA)}
sha256 = "{sha256(NINJA)}"
role = "build"

[[builds]]
python = "3.11"
torch = "2.1.1"

[[builds.packages]]
name = "torch"
version = "2.1.1+cu121"
file = "{TORCH_FILE}"
url = "{url}/whl/cu121/{TORCH_FILE.replace("+", "%2B")}"
{pins.get("torch", "")}
role = "runtime"
"""
        self.file.write_text(text, encoding="utf-8")
        return text

    def write_locked(self) -> str:
        return self.write(**{name: pinned(name) for name in (*_CONTENT, "base")})


_CONTENT = {"nvcc": NVCC, "cudart": CUDART, "python": PYTHON, "torch": TORCH}


def pinned(name: str) -> str:
    """The lines that pin what is published."""
    if name == "base":
        return f'digest = "{DIGEST}"'
    return f'size = {len(_CONTENT[name])}\nsha256 = "{sha256(_CONTENT[name])}"'


def configure(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Puts a configuration in the place of the user's: this server is the index."""
    config = PipConfig(indexes=(f"{server.url}/simple",), retries=1, timeout=5.0)
    for module in ("pins.lock", "pins.parts"):
        monkeypatch.setattr(f"fatwheel.{module}.read_pip_config", lambda: config)
    monkeypatch.setattr("fatwheel.toolchain.web._FIRST_PAUSE", 0.001)
