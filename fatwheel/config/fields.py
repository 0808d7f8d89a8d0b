"""The types of values that recipes, toolchains and locks may contain, each with its grammar.

`model` and `schema` give one to every value that they read, and a test makes sure of it. So a value
that was read is what its type says for all that follows: it can be a word of a Dockerfile or a
shell, a part of a path, a line of pip's requirements. Every type is bounded.

Every check raises ValueError with what would be valid; `mistakes` adds where it stands.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timezone
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from packaging import requirements
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    SerializationInfo,
    Strict,
    TypeAdapter,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from .. import arch
from ..arch import PLACEHOLDER, SEPARATORS, SPELLINGS, parse_arch
from ..errors import UsageError
from ..text import VALID_SIZES, parse_size

# A zip file, and so a wheel, can say no time outside these (PKWARE APPNOTE 4.4.6).
FIRST_EPOCH = int(datetime(1980, 1, 1, tzinfo=timezone.utc).timestamp())
LAST_EPOCH = int(datetime(2107, 12, 31, 23, 59, 58, tzinfo=timezone.utc).timestamp())

# Variables that a build gets from fatwheel; a recipe that set them would overrule it.
_SET_HERE = re.compile(
    r"CC|CMAKE_CUDA_ARCHITECTURES|CUDAARCHS|CUDA_HOME|CUDA_PATH|CXX|FATWHEEL_\w*|HOME|LC_ALL|MAX_JOBS|"
    r"PATH|PYTHONHASHSEED|PYTORCH_NVCC|SOURCE_DATE_EPOCH|TEMP|TMP|TMPDIR|TORCH_CUDA_ARCH_LIST|_LINK_"
)
# Variables that act on programs before the project has its turn: on the stand-ins for compilers,
# on the Python and the shell that run them (PYTHON_X are projects' own), on the loader of them
# all. And what compilers take from variables besides their arguments: it belongs into the project's
# flags, which a unit's key covers.
_HEEDED = re.compile(
    r"BASH_ENV|BASH_FUNC_\w*|COMSPEC|DYLD_\w+|ENV|GCONV_PATH|GLIBC_TUNABLES|LD_\w+|LOCPATH|PATHEXT|"
    r"PYTHON[A-Z0-9]+|SHELLOPTS|SYSTEMDRIVE|SYSTEMROOT|WINDIR|"
    r"CL|COMPILER_PATH|GCC_EXEC_PREFIX|LINK|NVCC_APPEND_FLAGS|NVCC_CCBIN|NVCC_PREPEND_FLAGS|_CL_"
)

# Hosts from which plain http is taken: this machine.
LOOPBACK = ("127.0.0.1", "::1", "localhost")

_SHOWN = 60  # characters of a value in a message
_SHORT, _LONG, _LONGEST = 100, 200, 2000  # characters of a name, of a file's name, of a URL
_LONGEST_VALUE = 16_384  # characters of a variable; Windows takes 32,767
_LARGEST = 1 << 40  # bytes of a file


def shown(text: str) -> str:
    """A foreign value as a message may have it."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _bounded(text: str, most: int) -> None:
    if len(text) > most:
        raise ValueError(f"{shown(text)} has {len(text)} characters; at most {most} are allowed")


def _matching(pattern: str, valid: str, most: int = _SHORT) -> AfterValidator:
    """ASCII only, and all of it: no line end is left over."""

    def check(text: str) -> str:
        _bounded(text, most)
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"{shown(text)} is not {valid}")
        return text

    return AfterValidator(check)


def _one_of(*words: Any) -> GetPydanticSchema:
    return GetPydanticSchema(lambda _, handler: handler(Literal[words]))


def _between(least: int, most: int, valid: str) -> AfterValidator:
    def check(number: int) -> int:
        if not least <= number <= most:
            what = f"{number}" if abs(number) < _LARGEST else "a long number"
            raise ValueError(f"{what} is not {valid}")
        return number

    return AfterValidator(check)


def _version(text: str) -> str:
    _bounded(text, _SHORT)
    try:
        # Version itself takes blanks around it, and letters that are only like those of ASCII.
        if not re.fullmatch(r"\w[\w.!+-]*", text, re.ASCII):
            raise InvalidVersion
        Version(text)
    except InvalidVersion:
        raise ValueError(f"{shown(text)} is not a version; valid: as in 2.8.3 or 1.0rc1") from None
    return text


def _public_version(text: str) -> str:
    if Version(_version(text)).local:
        raise ValueError(f"{shown(text)} has a local label; fatwheel adds its own to the wheel")
    return text


def _arch(text: str) -> str:
    _bounded(text, _SHORT)
    if text != text.strip():  # which `--arch` may be
        raise ValueError(f"{shown(text)} has spaces around it")
    try:
        return parse_arch(text).name
    except UsageError as error:
        raise ValueError(f"{error.what}; {error.hint}") from None


def _range(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    """The oldest and the newest of some versions."""
    if not isinstance(value, (list, tuple)):
        return handler(value)
    if len(value) == 2:
        low, high = found = handler(value)
        if low <= high:
            return found
    what = f"{list(value)}"[:_SHOWN]
    raise ValueError(f"{what} is not a range; valid: oldest and newest, as in [9, 15]")


def _requested_arch(text: str) -> str:
    _bounded(text, _SHORT)
    name, plus, extra = text.partition("+")
    if plus and extra != "ptx":
        raise ValueError(f"{text!r} is not a GPU architecture; valid: 80, 90a, 120f, 80+ptx")
    return _arch(name) + plus + extra


def _specifier(text: str) -> str:
    _bounded(text, _SHORT)
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise ValueError(f"{shown(text)} is no range of versions; valid: as in >=2.13") from None
    return text


def _value(text: str) -> str:
    """Anything else: it is never a word of a command, only a variable's value."""
    _bounded(text, _LONGEST_VALUE)
    if "\0" in text:
        raise ValueError("an environment variable cannot hold a NUL character")
    for found in PLACEHOLDER.finditer(text):
        spelling, separator = found[1] or SPELLINGS[0], found[2] or SEPARATORS[0]
        if spelling not in SPELLINGS or separator not in SEPARATORS:
            valid = ", ".join(f"{{archs:{one}}}" for one in SPELLINGS[1:])
            raise ValueError(
                f"{shown(found[0])} is no spelling of the architectures; valid: {{archs}}, "
                f"{valid}, each with a separator if need be, as in {{archs:number:,}}"
            )
    return text


def _variable(name: str) -> str:
    if len(name) > _LONG or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("not the name of an environment variable; valid: letters, digits, _")
    known = name.upper()  # Windows does not tell capitals
    if _SET_HERE.fullmatch(known):
        raise ValueError("fatwheel sets this variable itself; remove it")
    if _HEEDED.fullmatch(known):
        raise ValueError(
            "this variable would change how compilers work, or how they are started; remove it"
        )
    return name


def _folder(text: str) -> str:
    _bounded(text, _LONG)
    path = PurePosixPath(text)
    outside = path.is_absolute() or ".." in path.parts
    if outside or not path.parts or not re.fullmatch(r"[\w.+~@,()=/ -]+", text):
        raise ValueError(f"{shown(text)} is not a folder below this one; valid: as in src or a/b")
    return str(path)


def _patch(text: str) -> str:
    if PurePosixPath(_folder(text)).suffix not in (".patch", ".diff"):
        raise ValueError(f"{shown(text)} is not a patch; valid: as in no-isa.patch or a/b.diff")
    return str(PurePosixPath(text))


def _tar_url(text: str) -> str:
    if not _url(text).endswith((".tar.gz", ".tgz")):
        raise ValueError(f"{shown(text)} is not a .tar.gz")
    return text


def _script(text: str) -> str:
    _bounded(text, _LONG)
    path = PurePosixPath(text)
    plain = re.fullmatch(r"[\w.+~@,()=/ -]+", text)
    if path.is_absolute() or not plain or path.suffix != ".py":
        raise ValueError(
            f"{shown(text)} is not a script; valid: as in verify.py or ../flash-attn/verify.py"
        )
    return str(path)


def _name(text: str) -> str:
    """Of a recipe: its folder's, which becomes a part of paths."""
    _bounded(text, _LONG)
    if not re.fullmatch(r"[\w+.!~ -]+", text) or text.startswith("."):
        raise ValueError(f"{shown(text)} is not a valid folder name for a recipe")
    return text


# Blanks and digits of ASCII alone, as `packaging` reads markers.
_OF_THE_PYTHON = re.compile(r"python_version *(<|<=|>|>=|==|!=) *(['\"])3\.[0-9]{1,3}\2")


def _pin(text: str) -> str:
    """`numpy==2.2.6`, or with a marker that asks for the Python alone."""
    _bounded(text, _LONG)
    words, _, marker = text.partition(";")
    match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([\w.!+-]+)", words.strip(), re.ASCII)
    if not match:
        raise ValueError(f"{shown(text)} is not a pin; valid: as in ninja==1.13.2")
    _version(match[2])
    for condition in re.split(" +and +", marker.strip()) if marker else ():
        if not _OF_THE_PYTHON.fullmatch(condition):
            raise ValueError(
                f"{shown(marker.strip())} is not a marker of the Python; "
                "valid: as in python_version < '3.11'"
            )
    return text


def _requirement(text: str) -> str:
    _bounded(text, _LONG)
    try:
        found = requirements.Requirement(text)
    except requirements.InvalidRequirement:
        raise ValueError(f"{shown(text)} is not a requirement; valid: as in cmake>=3.26") from None
    if found.url or not text.isprintable() or not text.isascii():
        raise ValueError(f"{shown(text)} names a URL; pin the package under [[build]]")
    return text


def _wheel(text: str) -> str:
    try:
        parse_wheel_filename(text)
    except InvalidWheelFilename:
        raise ValueError(f"{shown(text)} is not a wheel's file name") from None
    return text


def _sdist(text: str) -> str:
    try:
        parse_sdist_filename(text)
    except InvalidSdistFilename:
        raise ValueError(
            f"{shown(text)} is not an sdist's file name; valid: as in flash_attn-2.3.6.tar.gz"
        ) from None
    return text


def _size(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"must be a string with a size; valid: {VALID_SIZES}")
    _bounded(value, _SHORT)
    return parse_size(value)


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
    _bounded(text, _LONGEST)
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        parts.port  # noqa: B018  # ValueError where it is none
    except ValueError:
        raise ValueError(f"{shown(text)} is not a URL") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise ValueError("must begin with https://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must not contain a user, a password, ? or #")
    name = unquote(parts.path.rpartition("/")[2]).replace(" ", "_")
    # Of RFC 3986's characters those that mean nothing to a shell.
    plain = re.fullmatch(r"[\w.~:/@%+,=!\[\]-]+", text, re.ASCII)
    if ".." in parts.path.split("/"):
        raise ValueError(f"{shown(text)} points outside its folder")
    if len(name) > _LONG or not host or not plain or not re.fullmatch(_FILE, name, re.ASCII):
        raise ValueError(
            f"{shown(text)} is not the URL of a file; valid: as in https://host/a/file.zip"
        )
    return text


_FILE = r"\w[\w.+!-]*"
_PLAIN_FILE = _matching(_FILE, "a file's name; valid: letters, digits, _ . + ! -", _LONG)

Project = Annotated[
    str, _matching("(?i:[a-z0-9]|[a-z0-9][a-z0-9._-]*[a-z0-9])", "a name; valid: as in flash_attn")
]
Name = Annotated[str, AfterValidator(_name)]  # of a recipe
Label = Annotated[  # of a toolchain
    str, _matching(r"[A-Za-z0-9][\w.-]*", "a toolchain's name; valid: as in linux-cuda13.0")
]
AnyVersion = Annotated[str, AfterValidator(_version)]
PublicVersion = Annotated[str, AfterValidator(_public_version)]
# As it can be in an image's tag.
Torch = Annotated[
    str, AfterValidator(_public_version), _matching(r"[\w.]+", "a torch; valid: as in 2.11.0")
]
Release = Annotated[str, _matching(r"\d{1,9}(\.\d{1,9}){1,9}", "a version; valid: as in 13.0")]
Python = Annotated[str, _matching(r"3\.\d{1,3}", "a Python; valid: as in 3.11")]
# What a Python says of itself: 3.11.7, 3.14.0rc1+.
FullPython = Annotated[
    str, _matching(r"3(\.\d{1,3})+[a-z0-9.+]*", "a Python's version; valid: as in 3.11.7")
]
# `g++ 12.2.0`, `cl 19.38.33130`; what gcc says may have a vendor's words behind.
Compiler = Annotated[
    str, _matching(r"[\w.+-]+ [\w.+~:()-]+", "a compiler; valid: as in g++ 12.2.0")
]
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
        r"[a-z0-9][a-z0-9._-]*(:\d{1,5})?(/[a-z0-9][a-z0-9._-]*)*(:\w[\w.-]{0,127})?",
        "an image; valid: as in python:3.11-bookworm, without a digest",
        255,
    ),
]
Url = Annotated[str, AfterValidator(_url)]
File = Annotated[str, _PLAIN_FILE]
WheelFile = Annotated[str, _PLAIN_FILE, AfterValidator(_wheel)]
SdistFile = Annotated[str, _PLAIN_FILE, AfterValidator(_sdist)]
Pin = Annotated[str, AfterValidator(_pin)]
Requirement = Annotated[str, AfterValidator(_requirement)]
DebianPath = Annotated[
    str,
    _matching(
        r"pool(/\w[\w.+-]*){3}/\w[\w.+-]*_[\w.+~-]+_(amd64|all)\.deb",
        "a place on Debian's mirrors; valid: as in pool/main/w/wine/wine64_8.0-4_amd64.deb",
        _LONG,
    ),
]
PartName = Annotated[str, _matching(r"\w[\w.-]*", "a name; valid: as in cuda_nvcc")]
InstalledFile = Annotated[
    str, _matching(r"\w[\w.+-]*", "a program or a library; valid: as in cudafe++")
]
Toolset = Annotated[str, _matching(r"14\.\d{1,4}", "a toolset of MSVC; valid: as in 14.38")]
Module = Annotated[
    str,
    _matching(
        r"[^\W\d]\w*(\.[^\W\d]\w*)*", "a module; valid: as in torch or flash_attn.ops", _LONG
    ),
]
Command = Annotated[str, _matching(r"\w[\w.+-]*", "the name of a command; valid: as in git")]
Pattern = Annotated[str, Field(min_length=1, max_length=_LONG)]  # only compared, never shown alone
# In files by its name.
Arch = Annotated[
    arch.Arch,
    GetPydanticSchema(
        lambda _, handler: handler(
            Annotated[str, AfterValidator(_arch), AfterValidator(parse_arch), PlainSerializer(str)]
        )
    ),
]
RequestedArch = Annotated[str, AfterValidator(_requested_arch)]
Variable = Annotated[str, AfterValidator(_variable)]
Value = Annotated[str, AfterValidator(_value)]
# A word of a compiler's command, and no file of further words.
Option = Annotated[
    str, _matching("[!-?A-~][ -~]*", "a word of a command; valid: as in -std=c++20", _LONG)
]
VersionRange = Annotated[str, AfterValidator(_specifier)]
Setting = Annotated[
    str, _matching(r"[\w.-][\w.+:/=-]*", "a setting's name; valid: as in cmake.define.USE_CUDA")
]
Capability = Annotated[str, _matching(r"\d{1,2}\.\d", "a compute capability; valid: as in 8.9")]
Folder = Annotated[str, AfterValidator(_folder)]
Script = Annotated[str, AfterValidator(_script)]
PatchFile = Annotated[str, AfterValidator(_patch)]
TarUrl = Annotated[str, AfterValidator(_tar_url)]
GitId = Annotated[
    str, _matching("[0-9a-f]{40}|[0-9a-f]{64}", "a full id of git's; valid: 40 digits 0-9, a-f")
]
Bytes = Annotated[int, Strict(), _between(1, _LARGEST, "a size; valid: a number of bytes above 0")]
Size = Annotated[int, BeforeValidator(_size), _between(1, 1 << 50, "a size of memory")]
Seconds = Annotated[float, Strict(), AfterValidator(_seconds)]
Epoch = Annotated[int, BeforeValidator(_epoch)]
AnyEpoch = Annotated[int, Strict(), _between(0, LAST_EPOCH, "a time that a wheel can hold")]
Major = Annotated[int, Strict(), _between(1, 999, "a major version; valid: as in 12")]
Majors = Annotated[tuple[Major, Major], WrapValidator(_range)]
MscVer = Annotated[int, Strict(), _between(1900, 9999, "an _MSC_VER; valid: as in 1938")]
OsBuild = Annotated[int, Strict(), _between(0, 10**6, "a build of Windows; valid: as in 20348")]
Role = Annotated[str, _one_of("compiler", "build", "runtime", "installer")]
Flag = Annotated[bool, _one_of(False, True)]
SourceRole = Annotated[str, _one_of("source")]
Os = Annotated[str, _one_of("linux", "windows")]

# How many there may be at most.
FEW, MANY = 100, 1000
Few = Field(max_length=FEW)
Many = Field(max_length=MANY)

# -- what is read of a field -----------------------------------------------------------------------

T = TypeVar("T")

# The context in which TOML is read, and digests are made of what it says.
TOML = "TOML"
EXTRA = "Extra inputs are not permitted"  # pydantic's words


_adapters: dict[Any, TypeAdapter[Any]] = {}


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """What reads and writes a type. It is kept: to make one takes longer than to read a file."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _or(nothing: object) -> WrapValidator:
    """Takes this for a value, too; but TOML leaves the key out."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if info.context != TOML and (type(value), value) == (type(nothing), nothing):
            return value
        return handler(value)

    return WrapValidator(check)


def _written(value: Any, info: SerializationInfo) -> Any:
    return value or None if info.context == TOML else value


def _refused(_: object) -> object:
    raise ValueError(EXTRA)


# What need not be known. TOML then leaves the key out, and locks say '' or 0.
OrEmpty = Annotated[T, _or(""), PlainSerializer(_written), Field(default="")]
OrZero = Annotated[T, _or(0), PlainSerializer(_written), Field(default=0)]
# What no file says: neither read nor written.
Here = Annotated[T, Field(exclude=True), BeforeValidator(_refused)]
