"""Writes the files beside a wheel: pylock.toml (PEP 751), requirements, lock and statement.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from ..config.pinned import Package
from ..errors import FormatError, HashMismatchError
from ..storage.documents import MOST
from ..storage.files import disk_error, readable, remove, replacing
from ..wheels.archive import Wheel, open_wheel
from ..wheels.name import parse_wheel_name
from .lock import FILE as LOCK_FILE
from .lock import BuildLock, Material, read_lock
from .statement import FILE as STATEMENT_FILE
from .statement import extended, read_statement, statement_bytes

if TYPE_CHECKING:
    from .signing import Signer

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
            raise _refused(one.filename, f"{found[one.name].filename} is for the same package")
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
        raise _refused(one.filename, f"{one.sha256!r:.80} is not a sha256")
    if one.url and not _URL.fullmatch(one.url):
        raise _refused(one.filename, f"{one.url!r:.80} is not a URL to download from")
    name, version = _identity(one.name, one.version, one.filename)
    return _File(name, version, one.filename, one.size, one.sha256, one.url)


def _identity(name: str, version: str, where: str) -> tuple[str, str]:
    try:
        return canonicalize_name(name, validate=True), str(Version(version))
    except (InvalidName, InvalidVersion) as error:
        raise _refused(where, str(error)) from error


def _located(one: _File) -> dict[str, Any]:
    place: dict[str, Any] = {"url": one.url} if one.url else {"path": one.filename}
    size = {"size": one.size} if one.size else {}  # which some indexes do not publish
    return {"name": one.filename, **place, **size, "hashes": {"sha256": one.sha256}}


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
        raise _refused(
            f"{lock.toolchain.platform!r:.80}", "it is not a platform such as linux-x86_64"
        )
    return match[1], match[2]


def _python(lock: BuildLock) -> str:
    if not _PYTHON.fullmatch(lock.python):
        raise _refused(f"{lock.python!r:.80}", "it is not a Python version such as 3.11")
    return lock.python


def _refused(where: str, why: str) -> FormatError:
    return FormatError(f"the lock cannot be written for installers: {why}", where=where)


# -- files beside a wheel --------------------------------------------------------------------------

# W.whl.provenance.json     the statement in the wheel, of the wheel file itself, with what the
#                               engine adds
#     W.whl.intoto.jsonl        the same, signed; only where there is a key
#     W.whl.lock.json           the lock in the wheel
#     W.whl.requirements.txt    for `pip install --require-hashes -r`
#     pylock.NAME.toml          the same for installers that know PEP 751
#
# Nothing of this machine is in them, and no time.


# What follows the wheel's name.
STATEMENT = ".provenance.json"
ENVELOPE = ".intoto.jsonl"
LOCK = ".lock.json"


@dataclass(frozen=True)
class _Inside:
    """What of a wheel the files beside it are made of. size is in bytes."""

    sha256: str
    size: int
    lock: BuildLock
    lock_data: bytes
    predicate: Mapping[str, Any]


def beside(wheel: Path, suffix: str) -> Path:
    """A file beside a wheel, by what follows the wheel's name."""
    return wheel.with_name(wheel.name + suffix)


def content_of(path: Path) -> bytes | None:
    """A file beside a wheel, or None where there is none. FormatError where it is no such file, or
    larger than any."""
    try:
        if not path.exists():
            return None
        if not path.is_file():  # a pipe would never end
            raise FormatError("it is not a file", where=path.name)
        with path.open("rb") as stream:
            data = stream.read(MOST + 1)
    except OSError as error:
        what = f"it cannot be read: {error.strerror or error}"
        raise FormatError(what, where=path.name) from error
    if len(data) > MOST:
        raise FormatError(f"it has more than {MOST} bytes", where=path.name)
    return data


def write_beside(
    wheel: Path,
    extra: Sequence[Material],
    internal: Mapping[str, Any],
    signer: Signer | None,
    sha256: str = "",
) -> tuple[Path, ...]:
    """Write all files beside a finished wheel; their paths.

    sha256: what the wheel must be, where that is known: others may write to its folder.

    extra and internal: further materials and internal parameters, of what the wheel does not
    know: the engine. Without a signer, an envelope that is there is of an older wheel, and goes.

    Raises UsageError where the wheel cannot be read, FormatError where there is no sound
    provenance in it, HashMismatchError where it is another wheel, StoreError where the disk does
    not take the files.
    """
    inside = _read(wheel)
    if sha256 not in ("", inside.sha256):
        raise HashMismatchError(
            "the wheel was changed after it was made",
            where=str(wheel),
            details=[f"made:  sha256 {sha256}", f"found: sha256 {inside.sha256}"],
            hint="use a folder to which nobody else can write: --out FOLDER",
        )
    predicate = extended(inside.predicate, extra, internal)
    statement = statement_bytes([(wheel.name, inside.sha256)], predicate)
    contents: dict[Path, bytes | None] = {
        beside(wheel, STATEMENT): statement,
        **_for_installers(wheel, inside),
        beside(wheel, LOCK): inside.lock_data,
    }
    if signer:
        from .signing import envelope_bytes

        contents[beside(wheel, ENVELOPE)] = envelope_bytes(statement, signer)
    _write(wheel, contents)
    return tuple(path for path, data in contents.items() if data is not None)


def signable(wheel: Path, statement: bytes | None, sha256: str) -> bytes:
    """The statement beside a finished wheel, which is about that wheel.

    statement, sha256: those that were verified, of the statement and the wheel. Neither is read
    again: others may write to the folder, and would have signed what nobody looked at.

    FormatError where there is no statement or it is about another file.
    """
    place = beside(wheel, STATEMENT)
    if statement is None:
        raise FormatError(
            "there is no statement beside it",
            where=str(wheel),
            hint=f"`invoke build` writes {place.name}; keep it with the wheel",
        )
    if read_statement(statement, str(place)).subjects != {wheel.name: sha256}:
        raise FormatError(
            "the statement is about another file",
            where=str(place),
            hint="the wheel was changed or renamed after it was built",
        )
    return statement


def sign(wheel: Path, statement: bytes, signer: Signer) -> Path:
    """Sign a statement that is `signable`; the envelope's path.

    StoreError where the disk does not take the envelope.
    """
    from .signing import envelope_bytes

    envelope = beside(wheel, ENVELOPE)
    _write(wheel, {envelope: envelope_bytes(statement, signer)})
    return envelope


def files_for_installers(wheel: Path) -> dict[Path, bytes | None]:
    """What must be in the files beside a wheel from which others install it; None where there can
    be no such file.

    Raises UsageError and FormatError as `write_beside`.
    """
    return _for_installers(wheel, _read(wheel))


def _for_installers(wheel: Path, inside: _Inside) -> dict[Path, bytes | None]:
    sha256, lock = inside.sha256, inside.lock
    pylock, requirements = (
        wheel.with_name(name(wheel)) for name in (pylock_name, requirements_name)
    )
    if lock.toolchain.installed:
        # Nothing says where its torch is from. Those of a pinned wheel of this name must go.
        return {pylock: None, requirements: None}
    return {
        pylock: pylock_bytes(wheel, sha256, inside.size, lock),
        requirements: requirements_text(wheel, sha256, lock).encode(),
    }


def _read(wheel: Path) -> _Inside:
    with readable(wheel, "a wheel"), open_wheel(wheel) as opened:
        lock_data = _member(opened, LOCK_FILE)
        statement = read_statement(_member(opened, STATEMENT_FILE), STATEMENT_FILE)
        # No source is looked for, so where recipes are makes no difference.
        lock = read_lock(lock_data, LOCK_FILE, Path())
        sha256, size = opened.digest()
    return _Inside(sha256, size, lock, lock_data, statement.predicate)


def _member(wheel: Wheel, name: str) -> bytes:
    place = f"{wheel.dist_info}/{name}"
    if place not in {member.name for member in wheel.members}:
        raise FormatError(
            "nothing in the wheel says how it was built",
            where=place,
            hint="wheels that `invoke build` makes have a lock and a statement in them",
        )
    return wheel.read(place)


def _write(wheel: Path, contents: Mapping[Path, bytes | None]) -> None:
    try:
        # First, so that no signature is ever beside a statement that it does not cover.
        remove(beside(wheel, ENVELOPE))
        for path, data in contents.items():
            if data is None:
                remove(path)
                continue
            with replacing(path) as stream:
                stream.write(data)
    except OSError as error:
        raise disk_error(
            error, f"write the files beside {wheel.name}", wheel.parent, "--out FOLDER"
        ) from error
