"""A Visual Studio in the folders of its installer, with a vswhere that says so; programs are what
the caller makes them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BIN = "bin/Hostx64/x64"
PARTS = (
    *(f"{BIN}/{name}" for name in ("cl.exe", "c1xx.dll", "c2.dll", "link.exe")),
    "lib/x64/libcmt.lib",
    "lib/x64/msvcrt.lib",
)
RUN_TIME = "x64/Microsoft.VC143.CRT/msvcp140.dll"
SDK_FOLDERS = ("ucrt", "shared", "um", "winrt")
# As it stands in Microsoft's STL, yvals_core.h of 14.44.
STL = """
#ifdef __CUDACC__
#if __CUDACC_VER_MAJOR__ < 12 || (__CUDACC_VER_MAJOR__ == 12 && __CUDACC_VER_MINOR__ < 4)
_EMIT_STL_ERROR(STL1002, "Unexpected compiler version, expected CUDA 12.4 or newer.");
#endif // ^^^ old CUDA ^^^
#endif // defined(__CUDACC__)
"""


def write_toolset(studio: Path, version: str, *, stl: str = STL) -> Path:
    """A toolset of a Visual Studio, whose programs are text; its folder."""
    folder = studio / "VC" / "Tools" / "MSVC" / version
    for name in PARTS:
        _write(folder / name, f"{name} of {version}")
    _write(folder / "include" / "yvals_core.h", stl)
    return folder


def write_run_time(studio: Path, version: str) -> Path:
    library = studio / "VC" / "Redist" / "MSVC" / version / RUN_TIME
    _write(library, "run time")
    _write(library.parents[1] / "Microsoft.VC143.MFC" / "mfc140.dll", "of no use here")
    return library.parent


def write_kit(kits: Path, version: str) -> None:
    """A Windows SDK in the folder of all of them."""
    for name in SDK_FOLDERS:
        _write(kits / "Include" / version / name / "a.h", name)
    for name in ("ucrt", "um"):
        _write(kits / "Lib" / version / name / "x64" / "a.lib", name)
    _write(kits / "bin" / version / "x64" / "rc.exe", "rc")


def instance(folder: str, release: str, version: str) -> dict[str, Any]:
    """What vswhere says of one, cut to what is there of every product (vswhere 3.1)."""
    return {
        "instanceId": "8f5bb2e2",
        "installDate": "2025-07-01T09:12:33Z",
        "installationName": f"VisualStudio/{release}+{version}",
        "installationPath": folder,
        "installationVersion": version,
        "productId": "Microsoft.VisualStudio.Product.BuildTools",
        "state": 4294967295,
        "isComplete": True,
        "isLaunchable": True,
        "isPrerelease": False,
        "displayName": "Visual Studio Build Tools 2022",
        "channelId": "VisualStudio.17.Release",
        "catalog": {
            "id": f"VisualStudio/{release}+{version}",
            "buildVersion": version,
            "productDisplayVersion": release,
            "productLineVersion": "2022",
        },
        "properties": {"campaignId": "", "nickname": ""},
    }


def answer(instances: Iterable[dict[str, Any]]) -> str:
    return json.dumps(list(instances), indent=2)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
