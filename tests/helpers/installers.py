"""A Windows SDK as Microsoft's installers have it: a package of Windows Installer, made by wixl,
and the cabinet that it names, made by gcab."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

from .msvcpackages import SDK

CABINET = "16ab2ea2187acffa6435e334796c8c89.cab"  # as Microsoft calls them
# Below Windows Kits/10; of the last two builds on x64 make no use.
FILES: Mapping[str, bytes] = {
    **{f"Include/{SDK}/{name}/a long name.h": name.encode() * 20_000
       for name in ("ucrt", "shared", "um", "winrt")},
    f"Include/{SDK}/um/empty.h": b"",
    f"bin/{SDK}/x64/rc.exe": b"rc",
    **{f"Lib/{SDK}/{name}/x64/a.Lib": name.encode() for name in ("ucrt", "um")},
    f"Lib/{SDK}/um/arm64/a.lib": b"of another processor",
    "Catalogs/a.cat": b"of signatures",
}  # fmt: skip
_WXS = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
 <Product Id="*" Name="SDK" Language="1033" Version="10.1.22621.0" Manufacturer="nobody"
          UpgradeCode="5C2A5E6C-0000-4000-8000-000000000000">
  <Package InstallerVersion="200" Compressed="yes" InstallScope="perMachine"/>
  <Media Id="1" Cabinet="{cabinet}" EmbedCab="no"/>
  <Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="ProgramFilesFolder">
   <Directory Id="KITS" Name="Windows Kits"><Directory Id="TEN" Name="10">{tree}</Directory>
  </Directory></Directory></Directory>
  <Feature Id="All" Level="1">{components}</Feature>
 </Product>
</Wix>
"""


def write_installer(
    folder: Path, files: Mapping[str, bytes] = FILES, name: str = "SDK Headers-x86_en-us.msi"
) -> list[Path]:
    """The package and its cabinet, in a folder. Names of files in the cabinet are keys."""
    work = folder / "work"
    work.mkdir(parents=True)
    tree, keys = _Tree(), []
    for number, (path, content) in enumerate(files.items()):
        keys.append(f"fil{number:032X}")
        (work / keys[-1]).write_bytes(content)
        tree.add(path.split("/"), number)
    components = "".join(f'<ComponentRef Id="C{number}"/>' for number in range(len(files)))
    text = _WXS.format(cabinet=CABINET, tree=tree.text(), components=components)
    (work / "sdk.wxs").write_text(text, encoding="utf-8")
    subprocess.run(["wixl", "sdk.wxs", "-o", str(folder / name)], cwd=work, check=True)
    return [folder / name, pack(folder / CABINET, work, keys)]


def pack(path: Path, folder: Path, names: list[str], *, zipped: bool = True) -> Path:
    """A cabinet of files in a folder."""
    subprocess.run(["gcab", "-cnz" if zipped else "-cn", str(path), *names], cwd=folder, check=True)
    return path


class _Tree:
    """Folders with files, as XML."""

    def __init__(self) -> None:
        self._folders: dict[str, _Tree] = {}
        self._files: list[tuple[str, int]] = []

    def add(self, parts: list[str], number: int) -> None:
        if len(parts) == 1:
            self._files.append((parts[0], number))
        else:
            self._folders.setdefault(parts[0], _Tree()).add(parts[1:], number)

    def text(self, place: str = "D") -> str:
        folders = (
            f'<Directory Id="{place}_{number}" Name={quoteattr(name)}>'
            f"{inner.text(f'{place}_{number}')}</Directory>"
            for number, (name, inner) in enumerate(self._folders.items())
        )
        files = (
            f'<Component Id="C{number}" Guid="5C2A5E6C-0000-4000-8000-{number + 1:012X}">'
            f'<File Id="fil{number:032X}" Source="fil{number:032X}" Name={quoteattr(name)}/>'
            "</Component>"
            for name, number in self._files
        )
        return "".join((*folders, *files))
