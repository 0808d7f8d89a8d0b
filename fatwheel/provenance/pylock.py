"""Beside a wheel: what to install with it, as a pylock file (PEP 751) and as pip's requirements.

Both list the wheel and all packages of the environment that it was made in, but for the installer.
That is more than has the role 'runtime': torch loads CUDA's runtime library, which lies in a
package with the role 'compiler', and asks for setuptools, whose role is 'build'. What a package
asks for is not in a lock, so nothing less is known to be enough.

A pylock file must say of each wheel where it is: by a URL, or by a path from the file's own folder
(PyPA specification "pylock.toml", packages.wheels). A lock has URLs only where a file does not come
from the user's own index, and which index that is must not be written for others. So every other
file is named by its path: it is expected beside the pylock file, and `pip download` brings it there
with the requirements file, which needs no place, only names, versions and hashes. Asking the index
for URLs while the file is written would make it depend on the user and the day.

The same lock and wheel give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from ..errors import FormatError
from ..model import Package
from ..wheels.name import parse_wheel_name
from .buildlock import BuildLock

_PYTHON = re.compile(r"[0-9]+\.[0-9]+")
_PLATFORM = re.compile(r"(linux|win)-([a-z0-9_]+)")
_SHA256 = re.compile("[0-9a-f]{64}")
# Nothing that ends a line or an argument, and no `${NAME}`, for which pip puts the value of an
# environment variable.
_URL = re.compile(r"https?://[\w.~:/?\[\]@!&'()*+,;=%-]+", re.ASCII)

_PYLOCK_HEAD = """\
# {wheel}
# and all packages of the environment that it was built in.
# The files without a URL must lie beside this one. To bring them here, and to install them:
#   pip download --no-deps --require-hashes --dest . --requirement {requirements}
#   pip install --requirement {pylock}

"""
_REQUIREMENTS_HEAD = """\
# {wheel}
# and all packages of the environment that it was built in, each by the sha256 of its file.
# For CPython {python} on {platform}. The wheel must lie beside this file; what has no URL comes
# from your own package index. To install:
#   pip install --require-hashes --requirement {requirements}

--find-links .

"""


@dataclass(frozen=True)
class _File:
    """A wheel to install; url is '' where it lies beside the lists. size in bytes."""

    name: str
    version: str
    filename: str
    size: int
    sha256: str
    url: str


def pylock_name(wheel: Path) -> str:
    """The name of a wheel's pylock file, `pylock.NAME.toml`; NAME may have no dots."""
    return f"pylock.{wheel.stem.replace('.', '_')}.toml"


def requirements_name(wheel: Path) -> str:
    """The name of a wheel's requirements file."""
    return f"{wheel.name}.requirements.txt"


def pylock_bytes(wheel: Path, sha256: str, size: int, lock: BuildLock) -> bytes:
    """The pylock file of a wheel of this sha256 and size in bytes; only its name is read.

    Raises FormatError where the lock has what no such file can hold.
    """
    files = _files(wheel, sha256, size, lock)
    content = {
        "lock-version": "1.0",
        "environments": [_environment(lock)],
        "requires-python": f"=={_python(lock)}.*",
        "created-by": "fatwheel",
        "packages": [
            {"name": one.name, "version": one.version, "wheels": [_located(one)]} for one in files
        ],
    }
    return (_head(_PYLOCK_HEAD, wheel, lock) + tomli_w.dumps(content)).encode()


def requirements_text(wheel: Path, sha256: str, lock: BuildLock) -> str:
    """The requirements file of a wheel of this sha256; only its name is read.

    Raises FormatError where the lock has what no such file can hold.
    """
    files = _files(wheel, sha256, 0, lock)
    return _head(_REQUIREMENTS_HEAD, wheel, lock) + "".join(map(_requirement, files))


def _head(text: str, wheel: Path, lock: BuildLock) -> str:
    return text.format(
        wheel=wheel.name,
        pylock=pylock_name(wheel),
        requirements=requirements_name(wheel),
        python=_python(lock),
        platform="-".join(_platform(lock)),
    )


def _files(wheel: Path, sha256: str, size: int, lock: BuildLock) -> tuple[_File, ...]:
    """The wheel first, then the others by name."""
    parts = parse_wheel_name(wheel.name)
    own = _checked(_File(parts.project, parts.version, wheel.name, size, sha256, ""))
    found = {own.name: own}
    for one in sorted(_packages(lock), key=lambda one: one.name):
        if found.setdefault(one.name, one) != one:
            raise _refused(one.filename, f"{found[one.name].filename} is of the same package")
    return tuple(found.values())


def _packages(lock: BuildLock) -> Iterator[_File]:
    of_torch = lock.toolchain.builds[0].packages
    for one in (*lock.toolchain.packages, *of_torch, *lock.recipe.runtime):
        if one.role != "installer":
            yield _of_package(one)


def _of_package(one: Package) -> _File:
    parts = parse_wheel_name(one.filename)
    own = _checked(_File(parts.project, parts.version, one.filename, one.size, one.sha256, one.url))
    if (own.name, own.version) != _identity(one.name, one.version, one.filename):
        raise _refused(one.filename, f"it is not {one.name} {one.version}")
    return own


def _checked(one: _File) -> _File:
    """The same with name and version in their one normal spelling."""
    if not _SHA256.fullmatch(one.sha256):
        raise _refused(one.filename, f"{one.sha256!r:.80} is no sha256")
    if one.url and not _URL.fullmatch(one.url):
        raise _refused(one.filename, f"{one.url!r:.80} is no URL to fetch from")
    name, version = _identity(one.name, one.version, one.filename)
    return _File(name, version, one.filename, one.size, one.sha256, one.url)


def _identity(name: str, version: str, where: str) -> tuple[str, str]:
    try:
        return canonicalize_name(name, validate=True), str(Version(version))
    except (InvalidName, InvalidVersion) as error:
        raise _refused(where, str(error)) from error


def _located(one: _File) -> dict[str, Any]:
    place = {"url": one.url} if one.url else {"path": one.filename}
    return {"name": one.filename, **place, "size": one.size, "hashes": {"sha256": one.sha256}}


def _requirement(one: _File) -> str:
    what = f"{one.name} @ {one.url}" if one.url else f"{one.name}=={one.version}"
    return f"{what} \\\n    --hash=sha256:{one.sha256}\n"


def _environment(lock: BuildLock) -> str:
    """The marker of the environments in which all of it runs."""
    system, machine = _platform(lock)
    if system == "win":  # there, Python writes the machine with capital letters
        system, machine = "win32", machine.upper()
    return (
        f"sys_platform == '{system}' and platform_machine == '{machine}' "
        "and implementation_name == 'cpython'"
    )


def _platform(lock: BuildLock) -> tuple[str, str]:
    match = _PLATFORM.fullmatch(lock.toolchain.platform)
    if not match:
        raise _refused(f"{lock.toolchain.platform!r:.80}", "it is no platform such as linux-x86_64")
    return match[1], match[2]


def _python(lock: BuildLock) -> str:
    if not _PYTHON.fullmatch(lock.python):
        raise _refused(f"{lock.python!r:.80}", "it is no Python such as 3.11")
    return lock.python


def _refused(where: str, why: str) -> FormatError:
    return FormatError(f"the lock cannot be written for installers: {why}", where=where)
