"""Packages as Microsoft publishes MSVC and the Windows SDK, with little in them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

VC = "Contents/VC/Tools/MSVC/14.38.33130"
SDK = "10.0.22621.0"
NUGET = "10.0.22621.3233"
DESCRIPTION = {"[Content_Types].xml": b"<Types/>", "manifest.json": b"{}"}

# What each has, by its file's name. OPC percent-encodes names.
PACKAGES: Mapping[str, Mapping[str, bytes]] = {
    "Microsoft.VC.14.38.17.8.Tools.HostX64.TargetX64.base.vsix": {
        f"{VC}/bin/Hostx64/x64/{name}": name.encode()
        for name in ("cl.exe", "c1xx.dll", "c2.dll", "link.exe")
    },
    "Microsoft.VC.14.38.17.8.Tools.HostX64.TargetX64.Res.base.enu.vsix": {
        f"{VC}/bin/Hostx64/x64/1033/clui.dll": b"words",
    },
    "Microsoft.VC.14.38.17.8.CRT.Headers.base.vsix": {
        f"{VC}/include/vector": b"// vector", f"{VC}/include/a%20b%5B1%5D.h": b"// a name",
    },
    "Microsoft.VC.14.38.17.8.CRT.x64.Desktop.base.vsix": {f"{VC}/lib/x64/libcmt.lib": b"static"},
    "Microsoft.VC.14.38.17.8.CRT.x64.Store.base.vsix": {f"{VC}/lib/x64/msvcrt.lib": b"dynamic"},
    "Microsoft.VC.14.38.17.8.CRT.Redist.X64.base.vsix": {
        "Contents/VC/Redist/MSVC/14.38.33135/x64/Microsoft.VC143.CRT/msvcp140.dll": b"run time",
    },
    f"microsoft.windows.sdk.cpp.{NUGET}.nupkg": {
        **{f"c/Include/{SDK}/{name}/a.h": name.encode()
           for name in ("ucrt", "shared", "um", "winrt")},
        f"c/bin/{SDK}/x64/rc.exe": b"rc",
        f"c/bin/{SDK}/arm64/rc.exe": b"of another processor",
        "build/native/a.props": b"for MSBuild",
    },
    f"microsoft.windows.sdk.cpp.x64.{NUGET}.nupkg": {
        f"c/{name}/x64/a.Lib": name.encode() for name in ("ucrt", "um")
    },
}  # fmt: skip


def write_packages(
    folder: Path, packages: Mapping[str, Mapping[str, bytes]] = PACKAGES
) -> list[Path]:
    """The files, in a folder, in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, members in packages.items():
        write_package(folder / name, members)
    return [folder / name for name in packages]


def write_package(path: Path, members: Mapping[str, bytes]) -> None:
    """A zip whose bytes depend on its members alone."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**DESCRIPTION, **members}.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
