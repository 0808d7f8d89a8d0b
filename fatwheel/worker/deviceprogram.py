"""The device program that a front end reads from a preprocessed text, as a digest.

With --keep, cicc leaves UNIT.cudafe1.gpu: what it understood of the device code, as plain C, with
templates instantiated, before its optimiser runs. Most of a text does not reach it: of torch's
headers a few lines at most do. So two texts may differ where their programs do not.

But this C does not show everything that decides PTX. Measured with nvcc 13.0, pair by pair: it
leaves out __maxnreg__, __block_size__, __cluster_dims__, __grid_constant__, [[likely]], and the
columns of line tables. All of those are written where the program's own declarations are. Hence the
digest covers

- the C as it is, with the files and lines that it names. Only the numbers in the names of local
  variables are counted anew, for they are lines of the whole text: `__cuda_local_var_111491_19_…`;
- of each file that it names, the preprocessed text, which has what the C leaves out;
- of each other file with an attribute that is not known to show in the C, its text too: a kernel
  may be declared in one file and defined in another. Of __launch_bounds__ the third value is not
  shown;
- with line tables, also when those files were written and what is in them: ptxas notes times and
  sizes.

What is not understood has no digest. That is so with constants that are no number (NaN), of which
the C shows neither sign nor payload, with attributes that it leaves out whose values have names,
for those may be defined in any file, and with raw strings that hold what looks like the marker of a
file. Standard library only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

_STRING = rb'"(?:[^"\\\n]|\\.)*"'
# What a string says stays: it is part of PTX.
_LOCAL = re.compile(rb"(%s|'(?:[^'\\\n]|\\.)*')|__cuda_local_var_(\d+_\d+)(?=_)" % _STRING)
_NAN = b"__builtin_nan"
_MARKER = re.compile(rb'^#(?:line)? (\d+) "((?:[^"\\\n]|\\.)*)"[^\n]*\n', re.MULTILINE)
_LIKE_A_MARKER = re.compile(rb'^#(?:line)? \d+ "[^\n]*\n', re.MULTILINE)
_RAW_STRING = re.compile(rb'R"([^\s()\\"]{0,16})\(')
_LIKE_MARKER = re.compile(rb"^#(?:line)? \d", re.MULTILINE)


def _nested(depth: int) -> bytes:
    """A pattern of what stands between parentheses, with others in it."""
    inner = rb"|\(%s\)" % _nested(depth - 1) if depth else b""
    return rb'(?:[^()";{}]|%s%s)*' % (_STRING, inner)


# Lists of attributes in all their spellings.
_LISTS = re.compile(
    rb"%s|(?P<gnu>__attribute(?:__)?\b)(?:\s*\(\s*\((?P<list>%s)\)\s*\))?"
    rb"|(?:\[|<:)\s*(?:\[|<:)(?!\")(?:(?P<plain>(?:[^\[\]\";{}]|%s)*)\]\s*\])?"
    % (_MARKER.pattern, _nested(5), _STRING),
    re.MULTILINE,
)
_NAME = re.compile(rb"\b[A-Za-z_]")
_TEMPLATE = re.compile(rb"(?<=\w)\s*<[^<>]*>(?=\s*(?:::\s*\w|>|,[^,]*>))")
_ARGUMENTS = re.compile(rb"\([^()]*\)")
# Attributes that the C shows, or that mean nothing to device code, or (the last line) that stand
# inside of functions, where the text of their file counts anyway.
_KNOWN = frozenset(
    b"""
    global device host shared constant managed launch_bounds
    device_builtin device_builtin_surface_type device_builtin_texture_type cudart_builtin nv_weak
    noinline always_inline gnu_inline artificial flatten aligned packed vector_size mode may_alias
    pure const malloc nothrow noreturn leaf returns_twice returns_nonnull nonnull alloc_size
    alloc_align weak used unused maybe_unused cold hot visibility abi_tag deprecated unavailable
    nodiscard warn_unused_result format format_arg sentinel no_unique_address transparent_union
    externally_visible error warning access assume_aligned init_priority constructor destructor
    tls_model
    exclude_from_explicit_instantiation no_specializations preferred_name
    likely unlikely fallthrough assume
    """.split()
)  # fmt: skip

# Options of nvcc by which device code says more of its source, or is linked later: not understood.
_BEYOND = re.compile(
    r"-G|--?device-debug|--?rdc(=.*)?|--?relocatable-device-code(=.*)?|-dc|--device-c|-dw|--device-w"
    r"|--?dlto|--?dlink-time-opt|-ewp|--extensible-whole-program|--?opt(ions-)?f(ile)?(=.*)?"
)
_LINES = re.compile(
    r"--?lineinfo|--?generate-line-info|-src-in-ptx|--source-in-ptx|-g|--debug", re.IGNORECASE
)


def is_understood(codegen: Sequence[str]) -> bool:
    """Whether what these options make of a device program depends on nothing else."""
    return not any(map(_BEYOND.fullmatch, codegen))


def keeps_lines(codegen: Sequence[str]) -> bool:
    """Whether code made with these options may have tables of lines and files."""
    return any(map(_LINES.fullmatch, codegen))


def digest_of_program(
    program: Path, text: Path, stamp: Callable[[str], str | None] | None
) -> str | None:
    """The digest of a device program that was read from a preprocessed text, or None where
    something in it is not understood.

    stamp: for code with line tables, gives what is in a file and when it was written, by its name
    in the text; None where that is not known. Raises OSError where a file cannot be read.
    """
    shown, whole = program.read_bytes(), text.read_bytes()
    sections = _sections(whole)
    # Most lines of a program are markers, and most of those the same: each is read once.
    markers = map(_MARKER.match, set(_LIKE_A_MARKER.findall(shown)))
    named = sorted({match[2] for match in markers if match})
    strange = _strange_files(whole)
    if not named or not sections.keys() >= set(named) or strange is None:
        return None
    if _NAN in shown or _hides_markers(whole):
        return None
    more = sorted((strange & sections.keys()) - set(named))
    sha = hashlib.sha256()
    sha.update(b"".join(_renumbered(shown)))
    for name in (*named, *more):
        sha.update(b"\0%s\0" % name)
        for part in sections[name]:
            sha.update(part)
    for name in named if stamp else ():
        found = stamp(name.decode("utf-8", "surrogateescape")) if stamp else None
        if found is None:
            return None
        sha.update(f"\0{found}".encode())
    return sha.hexdigest()


def _renumbered(program: bytes) -> Iterable[bytes]:
    """A program in pieces, with local variables counted in the order in which they appear.

    The names stay different where they were, and are no part of PTX: they are only local.
    """
    numbers: dict[bytes, bytes] = {}
    end = 0
    for match in _LOCAL.finditer(program):
        yield program[end : match.start()]
        found = match[2]
        yield match[1] if found is None else numbers.setdefault(found, b"\0%d" % len(numbers))
        end = match.end()
    yield program[end:]


def _sections(text: bytes) -> dict[bytes, list[bytes]]:
    """What a preprocessed text has of each file, by its name: lines' numbers, and what follows."""
    found: dict[bytes, list[bytes]] = {}
    before: re.Match[bytes] | None = None
    for marker in _MARKER.finditer(text):
        if before:
            _add(found, before, text[before.end() : marker.start()])
        before = marker
    if before:
        _add(found, before, text[before.end() :])
    return found


def _add(found: dict[bytes, list[bytes]], marker: re.Match[bytes], text: bytes) -> None:
    # Where nothing follows, another file was only entered or left.
    parts = found.setdefault(marker[2], [])
    if text.strip():
        parts += [marker[1], b"\n", text]


def _hides_markers(text: bytes) -> bool:
    """Whether a raw string has what would be read as the marker of a file."""
    for start in _RAW_STRING.finditer(text):
        end = text.find(b')%s"' % start[1], start.end())
        if end < 0 or _LIKE_MARKER.search(text, start.end(), end):
            return True
    return False


def _strange_files(text: bytes) -> set[bytes] | None:
    """The files with an attribute that is not known to show in a program; None where one has an
    argument by name, and where a list of attributes cannot be read, or is in several files."""
    name, strange, known = b"", set(), {b""}
    for found in _LISTS.finditer(text):
        if found[2] is not None:
            name = found[2]
            continue
        attributes = found["list"] if found["gnu"] else found["plain"]
        if attributes in known:
            continue
        if attributes is None and not found["gnu"]:
            strange.add(name)  # or it is no list, but in a string
            continue
        if attributes is None or any(one[2] != name for one in _MARKER.finditer(attributes)):
            return None
        plain = _MARKER.sub(b"", attributes)
        if _are_known(plain):
            known.add(attributes)
        elif _NAME.search(re.sub(_STRING, b"", plain).partition(b"(")[2]):
            return None  # its value may come from any file
        else:
            strange.add(name)
    return strange


def _are_known(attributes: bytes) -> bool:
    if b"launch_bounds" in attributes and _without_templates(attributes).count(b",") > 1:
        return False
    return all(_name(attribute) in _KNOWN for attribute in _without(attributes).split(b","))


def _without_templates(attributes: bytes) -> bytes:
    """`bounds(P<A, B>::n)`: `bounds(P::n)`."""
    while (shorter := _TEMPLATE.sub(b"", attributes)) != attributes:
        attributes = shorter
    return attributes


def _name(attribute: bytes) -> bytes:
    """`__noinline__`, `gnu::noinline`: noinline. What comes before a colon with `using` is a
    namespace."""
    word = attribute.rpartition(b":")[2].strip().strip(b"_")
    return word or b"unused"


def _without(arguments: bytes) -> bytes:
    """A list of attributes without their arguments, which may hold parentheses themselves."""
    while (shorter := _ARGUMENTS.sub(b"", arguments)) != arguments:
        arguments = shorter
    return arguments.partition(b"(")[0]
