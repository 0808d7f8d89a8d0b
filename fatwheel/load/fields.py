"""The kinds of value that may stand in a recipe or a toolchain, each checked and normalised.

Every check raises ValueError with what would be valid; `mistakes` adds where it stands.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timezone
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import unquote, urlsplit

from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BeforeValidator

from ..arch import parse_arch
from ..errors import UsageError
from ..sizes import VALID_SIZES, parse_size

# A zip file, and so a wheel, can say no time outside these (PKWARE APPNOTE 4.4.6).
FIRST_EPOCH = int(datetime(1980, 1, 1, tzinfo=timezone.utc).timestamp())
LAST_EPOCH = int(datetime(2107, 12, 31, 23, 59, 58, tzinfo=timezone.utc).timestamp())

# Variables that a build gets from fatwheel; a recipe that set them would be overruled.
RESERVED_VARIABLES = (
    "CUDA_HOME",
    "CUDA_PATH",
    "CXX",
    "MAX_JOBS",
    "PATH",
    "PYTHONHASHSEED",
    "PYTORCH_NVCC",
    "SOURCE_DATE_EPOCH",
    "TORCH_CUDA_ARCH_LIST",
)


# Hosts from which plain http is taken: this machine.
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _matching(pattern: str, valid: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"{text!r} is not {valid}")
        return text

    return AfterValidator(check)


def _version(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion:
        raise ValueError(f"{text!r} is not a version; valid: as in 2.8.3 or 1.0rc1") from None
    return text


def _public_version(text: str) -> str:
    if Version(_version(text)).local:
        raise ValueError(f"{text!r} has a local label; fatwheel adds its own to the wheel")
    return text


def _arch(text: str) -> str:
    try:
        return parse_arch(text).name
    except UsageError as error:
        raise ValueError(f"{error.what}; {error.hint}") from None


def _requested_arch(text: str) -> str:
    name, plus, extra = text.partition("+")
    if plus and extra != "ptx":
        raise ValueError(f"{text!r} is not a GPU architecture; valid: 80, 90a, 120f, 80+ptx")
    return _arch(name) + plus + extra


def _value(text: str) -> str:
    if "\0" in text:
        raise ValueError("an environment variable cannot hold a NUL character")
    return text


def _variable(name: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("not the name of an environment variable; valid: letters, digits, _")
    if name in RESERVED_VARIABLES or name.startswith("FATWHEEL_"):
        raise ValueError("fatwheel sets this variable itself; remove it")
    return name


def _folder(text: str) -> str:
    path = PurePosixPath(text)
    outside = path.is_absolute() or ".." in path.parts or re.search(r"[:\\\0]", text)
    if outside or not path.parts:
        raise ValueError(f"{text!r} is not a folder below this one; valid: as in src or a/b")
    return str(path)


def _script(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or re.search(r"[:\\\0]", text) or path.suffix != ".py":
        raise ValueError(
            f"{text!r} is not a script; valid: as in verify.py or ../flash-attn/verify.py"
        )
    return str(path)


def _size(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"must be a string with a size; valid: {VALID_SIZES}")
    return parse_size(value)


def _bytes(value: int) -> int:
    if value <= 0:
        raise ValueError(f"{value} is not a size; valid: a number of bytes above 0")
    return value


def _seconds(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{value:g} is not a duration; valid: a number of seconds above 0")
    return value


def _epoch(value: object) -> int:
    """Seconds since 1970 from a number, a date (midnight UTC) or a time with its offset."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("the time has no offset; valid: as in 2023-11-28T02:16:00Z")
        value = int(value.timestamp())
    elif isinstance(value, date):
        value = int(datetime.combine(value, time(), timezone.utc).timestamp())
    if type(value) is not int:
        raise ValueError("must be a date, or seconds since 1970; valid: as in 2023-11-28")
    if not FIRST_EPOCH <= value <= LAST_EPOCH:
        raise ValueError("a wheel's times must lie between 1980-01-01 and 2107-12-31")
    return value


def _url(text: str) -> str:
    """https; from this machine itself http too, for trying things out."""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        raise ValueError(f"{text!r} is not a URL") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise ValueError("must begin with https://")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must have no user, password, ? or # in it")
    name = unquote(parts.path.rpartition("/")[2])
    if not host or not re.fullmatch(r"\w[\w.+-]*", name, re.ASCII) or re.search(r"[\s\\]", text):
        raise ValueError(f"{text!r} is not the URL of a file; valid: as in https://host/a/file.zip")
    return text


Project = Annotated[
    str, _matching("(?i:[a-z0-9]|[a-z0-9][a-z0-9._-]*[a-z0-9])", "a name; valid: as in flash_attn")
]
AnyVersion = Annotated[str, AfterValidator(_version)]
PublicVersion = Annotated[str, AfterValidator(_public_version)]
Release = Annotated[str, _matching(r"\d+(\.\d+)+", "a version; valid: as in 13.0")]
Python = Annotated[str, _matching(r"3\.\d+", "a Python; valid: as in 3.11")]
Platform = Annotated[
    str, _matching("(linux|win)-[a-z0-9_]+", "a platform; valid: as in linux-x86_64")
]
Sha256 = Annotated[str, _matching("[0-9a-f]{64}", "a sha256; valid: 64 digits 0-9, a-f")]
Digest = Annotated[
    str, _matching("sha256:[0-9a-f]{64}", "a digest; valid: sha256: and 64 digits 0-9, a-f")
]
# As `docker pull` takes it (distribution/reference: [HOST[:PORT]/]PATH[:TAG]).
Reference = Annotated[
    str,
    _matching(
        r"[a-z0-9][a-z0-9._-]*(:\d+)?(/[a-z0-9][a-z0-9._-]*)*(:\w[\w.-]{0,127})?",
        "an image; valid: as in python:3.11-bookworm, without a digest",
    ),
]
Url = Annotated[str, AfterValidator(_url)]
Part = Annotated[str, _matching(r"\w[\w.-]*", "a name; valid: as in cuda_nvcc")]
Toolset = Annotated[str, _matching(r"14\.\d+", "a toolset of MSVC; valid: as in 14.38")]
Component = Annotated[
    str,
    _matching(r"\w+(\.\w+)+", "a component; valid: as in Microsoft.VisualStudio.Component.Roslyn"),
]
Module = Annotated[
    str, _matching(r"[^\W\d]\w*(\.[^\W\d]\w*)*", "a module; valid: as in torch or flash_attn.ops")
]
Command = Annotated[str, _matching(r"\w[\w.+-]*", "the name of a command; valid: as in git")]
Arch = Annotated[str, AfterValidator(_arch)]
RequestedArch = Annotated[str, AfterValidator(_requested_arch)]
Variable = Annotated[str, AfterValidator(_variable)]
Value = Annotated[str, AfterValidator(_value)]
Folder = Annotated[str, AfterValidator(_folder)]
Script = Annotated[str, AfterValidator(_script)]
Bytes = Annotated[int, AfterValidator(_bytes)]
Size = Annotated[int, BeforeValidator(_size)]
Seconds = Annotated[float, AfterValidator(_seconds)]
Epoch = Annotated[int, BeforeValidator(_epoch)]
