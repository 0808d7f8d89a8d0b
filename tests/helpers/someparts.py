"""A folder with parts of toolchains: three CUDAs, three torches, two C++ compilers for Windows."""

from __future__ import annotations

from pathlib import Path

HASH = "0123456789abcdef" * 4

# Ten lines: all that a new CUDA needs.
CUDA_99 = f"""\
version = "99.1.0"
nvcc = "99.1.7"
archs = ["90", "990", "990a"]
gcc = 40
msvc = [1930, 3999]
manifest = "https://example.org/redist/redistrib_99.1.0.json"
archives = [
  {{ name = "cuda_nvcc", version = "99.1.7", platform = "linux-x86_64", sha256 = "{HASH}" }},
  {{ name = "cuda_nvcc", version = "99.1.7", platform = "windows-x86_64", sha256 = "{HASH}" }},
]
"""


def _cuda(version: str, archs: str, gcc: int, msvc: str) -> str:
    text = CUDA_99.replace("99.1.0", version).replace("99.1.7", version)
    text = text.replace('"90", "990", "990a"', archs).replace("gcc = 40", f"gcc = {gcc}")
    return text.replace("[1930, 3999]", msvc)


_CUDAS = {
    "12.6.3": _cuda("12.6.3", '"80", "89", "90"', 13, "[1910, 1949]"),
    "12.8.1": _cuda("12.8.1", '"80", "89", "90", "120"', 14, "[1910, 1949]"),
    "13.0.2": _cuda("13.0.2", '"80", "89", "90", "120"', 15, "[1920, 1949]"),
}

# Which CUDAs each torch is built for, and for which Pythons; for Windows without CUDA 13.
_TORCHES = {
    "2.8.0": (("12.6", "12.8"), ("3.10", "3.11")),
    "2.9.1": (("12.8", "13.0"), ("3.11", "3.12")),
    "99.2.0": (("99.1",), ("3.12",)),
}


def torch_part(
    version: str, cudas: tuple[str, ...], pythons: tuple[str, ...], *more_requires: str
) -> str:
    lines = [f'version = "{version}"', "gcc = 9", 'tools = ["ninja==1.13.0"]']
    for cuda in cudas:
        for platform, tag in (("linux-x86_64", "linux_x86_64"), ("win-amd64", "win_amd64")):
            if platform == "win-amd64" and cuda.startswith("13"):
                continue
            requires = ", ".join(
                f'"{pin}"' for pin in ("numpy==2.2.6; python_version < '3.11'", *more_requires)
            )
            lines += ["[[variants]]", f'cuda = "{cuda}"', f'platform = "{platform}"']
            lines += [f"requires = [{requires}]", "wheels = ["]
            for python in pythons:
                cp = f"cp{python.replace('.', '')}"
                local = cuda.replace(".", "")
                file = f"torch-{version}+cu{local}-{cp}-{cp}-{tag}.whl"
                url = f"https://example.org/whl/{file.replace('+', '%2B')}"
                pins = f'file = "{file}", sha256 = "{HASH}", url = "{url}"'
                lines.append(f'  {{ python = "{python}", {pins} }},')
            lines.append("]")
    return "\n".join(lines) + "\n"


def _files(*names: str) -> str:
    lines = [f'  {{ file = "{name}", size = 1000, sha256 = "{HASH}" }},' for name in names]
    return "\n".join(["files = [", *lines, "]"]) + "\n"


_MSVC = f"""\
visual_studio = "17.8.2"
cl = "19.38.33130"
toolset = "14.38"
least_cuda = "11.6"
license = "https://example.org/terms"
channel = {{ url = "https://example.org/a.chman", sha256 = "{HASH}" }}
catalogue = {{ url = "https://example.org/a.vsman", sha256 = "{HASH}" }}
[[payloads]]
name = "Microsoft.VC.14.38.17.8.CRT.Headers.base"
version = "14.38.33130"
url = "https://example.org/Microsoft.VC.14.38.17.8.CRT.Headers.base.vsix"
sha256 = "{HASH}"
"""

_LINUX_IMAGES = """\
os = "linux"
installer = "pip==25.3"
[[bases]]
reference = "python:3.11-bookworm"
pythons = ["3.11"]
"""

_WINDOWS_IMAGES = f"""\
os = "windows"
os_build = 20348
installer = "pip==25.3"
[[bases]]
reference = "mcr.microsoft.com/windows/servercore:ltsc2022"
[[interpreters]]
python = "3.11"
version = "3.11.9"
url = "https://example.org/python-3.11.9-amd64.exe"
sha256 = "{HASH}"
"""


def write_toolchain(toolchains: Path, name: str) -> None:
    """A toolchain with a name: CUDA 13.0 and torch 2.11.0 for Python 3.10 and 3.11."""

    def package(name: str, version: str, role: str, tags: str) -> str:
        named = f'name = "{name}", version = "{version}", role = "{role}"'
        file = f'file = "{name}-{version}-{tags}.whl", size = 1000, sha256 = "{HASH}"'
        return f"packages = [{{ {named}, {file} }}]"

    lines = [
        f'name = "{name}"',
        'platform = "linux-x86_64"\ncuda = "13.0"\nnvcc = "13.0.88"',
        'archs = ["80", "86"]\ngcc = [9, 15]',
        package("ninja", "1.13.0", "build", "py3-none-any"),
    ]
    for python in ("3.10", "3.11"):
        cp = f"cp{python.replace('.', '')}"
        lines.append(f'[[builds]]\ntorch = "2.11.0"\npython = "{python}"')
        lines.append(package("torch", "2.11.0", "runtime", f"{cp}-{cp}-linux_x86_64"))
    (toolchains / f"{name}.toml").write_text("\n".join(lines) + "\n")


def write_parts(toolchains: Path) -> Path:
    """The parts in a folder `parts` of a folder of toolchains, without CUDA_99."""
    texts = {f"cuda/{version}": text for version, text in _CUDAS.items()}
    texts |= {f"torch/{version}": torch_part(version, *of) for version, of in _TORCHES.items()}
    texts |= {
        "msvc/14.38": _MSVC,
        "msvc/14.51": _MSVC.replace("19.38.33130", "19.51.36231")
        .replace("14.38", "14.51")
        .replace('"11.6"', '"13.2"'),
        "images/linux-x86_64": _LINUX_IMAGES,
        "images/win-amd64": _WINDOWS_IMAGES,
        "packages/ninja": _files(
            "ninja-1.13.0-py3-none-win_amd64.whl",
            "ninja-1.13.0-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        ),
        "packages/pip": _files("pip-25.3-py3-none-any.whl"),
        "packages/numpy": _files(
            "numpy-2.2.6-cp310-cp310-manylinux_2_17_x86_64.whl",
            "numpy-2.2.6-cp310-cp310-win_amd64.whl",
        ),
    }
    for name, text in texts.items():
        add_part(toolchains, name, text)
    return toolchains


def add_part(toolchains: Path, name: str, text: str) -> None:
    """One more part: `cuda/99.1.0`."""
    file = toolchains / "parts" / f"{name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
