"""Writes an index of wheels as a static site: `invoke index`.

    OUT/index.html                        the finder: which wheel for which GPU
    OUT/wheels.json                       all offers; what the site was made from
    OUT/simple/PROJECT/index.html, .json  the index of all wheels, as installers read it
    OUT/cu130/torch2.11/PROJECT/…         the same for one CUDA and torch
    OUT/files/NAME.whl, NAME.whl.metadata the wheels, and what is shown beside them

Formats: PyPA's "Simple repository API" (PEP 503, 691, 700) and "Core metadata in indexes" (PEP 658,
714). All links are relative, except those to wheels under a base URL. The same wheels make the same
bytes. Files are replaced one by one, what pages refer to before the pages, and wheels.json last: a
site that was interrupted is completed by the next run.
"""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ..errors import FatwheelError, FormatError, UsageError
from ..events import Emit, step
from ..storage import files
from ..storage.documents import read_value
from ..verify.coverage import gpu_names
from .offers import METADATA, Found, Offer, read_offer

LIST = "wheels.json"
ALL = "simple"
_API = "1.1"  # of the simple API: with versions and sizes (PEP 700)
_MOST = 256 << 20  # bytes of wheels.json; that of 2,000 wheels has 3 MiB
_MOST_VALUES = 5_000_000
_NEWEST_PYTHON = 40  # a minor number that no Python has yet
_BASE = re.compile(r"https?://[A-Za-z0-9._~:/\[\]@%+,=-]+")


class Placed(BaseModel):
    """An offer, and where its file is: `files/` of the site, or under a base URL.

    base: '' for the site itself. beside: whether METADATA can be had at the file's URL with
    `.metadata` after it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    offer: Offer
    base: Annotated[str, StringConstraints(max_length=2000)] = ""
    beside: bool = True

    def url(self, root: str) -> str:
        """Of the file, for a page from which the site's top is at `root` (`../../`)."""
        return (self.base or f"{root}files/") + quote(self.offer.filename)


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_: Literal[1] = Field(default=1, alias="schema")
    wheels: Annotated[tuple[Placed, ...], Field(max_length=100_000)]


@dataclass(frozen=True)
class Request:
    """base_url: where the wheels are, or '' to copy them into the site. beside: whether their
    METADATA files are there as well. only: whether wheels that are not named leave the site."""

    base_url: str = ""
    beside: bool = False
    only: bool = False


@dataclass(frozen=True)
class Written:
    """What became of a site. Paths are relative to it."""

    folder: Path
    wheels: tuple[Placed, ...]
    channels: tuple[str, ...]
    written: tuple[str, ...]
    removed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `invoke index --json` prints it (index.schema.json)."""
        return {
            "folder": str(self.folder),
            "channels": list(self.channels),
            "wheels": [one.model_dump(mode="json") for one in self.wheels],
            "written": list(self.written),
            "removed": list(self.removed),
        }


def write_site(wheels: Sequence[Path], out: Path, request: Request, emit: Emit) -> Written:
    """Add wheels to the site in a folder, which is made if need be.

    UsageError for no wheel, a base URL that is none, two wheels of one name with different bytes,
    and a folder with other things in it; FormatError for a wheel that cannot be offered. All of the
    wheels' mistakes are told at once, and nothing is written then.
    """
    base = _checked_base(request.base_url)
    before = _read_list(out)
    if not wheels and not before:
        raise UsageError("which wheels?", hint="name at least one: invoke index dist/*.whl")
    found = _read_all(wheels, emit)
    beside = request.beside or not base
    placed = [Placed(offer=one.offer, base=base, beside=beside) for one in found]
    kept = () if request.only else before
    offered = _ordered(_joined(kept, placed))
    pages = _pages(offered)
    with step(emit, "write"):
        written = [
            *_copied(found, before, out, copy_wheels=not base),
            *(name for name, data in pages.items() if _put(out, name, data)),
        ]
        removed = _remove_stale(out, before, offered)
        if _put(out, LIST, _list_bytes(offered)):
            written.append(LIST)
    channels = tuple(sorted({one.offer.channel for one in offered} - {""}))
    return Written(out, offered, channels, tuple(written), tuple(removed))


# -- what is on the site ---------------------------------------------------------------------------


def _checked_base(url: str) -> str:
    """With a slash at its end."""
    if not url:
        return ""
    parts = None
    with suppress(ValueError):  # of brackets around what is no address
        parts = urlsplit(url) if _BASE.fullmatch(url) else None
    if parts is None or not parts.hostname or "@" in parts.netloc:
        raise UsageError(
            f"{url!r} is no URL of a folder of wheels",
            where="--base-url",
            hint="valid: https://github.com/ORG/REPOSITORY/releases/download/TAG",
        )
    return url.rstrip("/") + "/"


def _read_list(out: Path) -> tuple[Placed, ...]:
    """What the site offers already."""
    path = out / LIST
    data = files.read(path)
    if data is None:
        # A new repository of git's is an empty folder, too.
        others = out.exists() and any(path.name[0] != "." for path in out.iterdir())
        if others and not (out / "files").is_dir():
            raise UsageError(
                f"there are files, but no {LIST}: it is no site of fatwheel's",
                where=str(out),
                hint="use another folder, or an empty one",
            )
        return ()
    try:
        content = read_value(data, str(path), _MOST, _MOST_VALUES)
        found = _List.model_validate(content).wheels
        for one in found:
            Version(one.offer.version)
            if one.base != _checked_base(one.base):
                raise FormatError(f"{one.base!r:.100} does not end with a slash")
        return found
    except (ValidationError, InvalidVersion, FatwheelError) as error:
        raise FormatError(
            f"it is damaged or of another version of fatwheel: {str(error).splitlines()[0]}",
            where=str(path),
            hint="delete it and name all wheels of the site once more",
        ) from error


def _read_all(wheels: Sequence[Path], emit: Emit) -> list[Found]:
    found, refused = [], []
    for path in wheels:
        try:
            with step(emit, "read", path.name):
                found.append(read_offer(path))
        except FatwheelError as error:
            refused.append((path, error))
    if len(refused) == 1:
        [(path, alone)] = refused
        raise alone if alone.where and path.name in alone.where else alone.within(str(path))
    if refused:
        raise FormatError(
            f"{len(refused)} of {len(wheels)} wheels cannot be offered, and nothing was written",
            details=[f"{path}: {error.what}" for path, error in refused],
            hint="`invoke verify WHEEL` says all that is wrong with one",
        )
    return found


def _joined(before: Sequence[Placed], new: Sequence[Placed]) -> list[Placed]:
    """One for each file name. UsageError where two have one name and other bytes."""
    by_name: dict[str, Placed] = {}
    clashes = []
    for one in (*before, *new):
        known = by_name.get(one.offer.filename)
        if known and known.offer.sha256 != one.offer.sha256:
            clashes.append(one.offer.filename)
        by_name[one.offer.filename] = one
    if clashes:
        raise UsageError(
            "wheels of one name have different bytes",
            details=sorted(set(clashes)),
            hint="give one of them another version or build tag: who has installed the one by its "
            "hash must not get the other. To replace what a site offers, use --only",
        )
    return list(by_name.values())


def _ordered(placed: Iterable[Placed]) -> tuple[Placed, ...]:
    return tuple(
        sorted(
            placed,
            key=lambda one: (one.offer.project, Version(one.offer.version), one.offer.filename),
        )
    )


# -- its pages -------------------------------------------------------------------------------------


def _pages(offered: Sequence[Placed]) -> dict[str, bytes]:
    """The site's pages by their paths, those first to which others lead."""
    found: dict[str, bytes] = {}
    for folder, members in sorted(_by_channel(offered).items()):
        found |= _channel(folder, members)
    found["index.html"] = finder_page(offered)
    found[".nojekyll"] = b""  # GitHub Pages leaves the site as it is
    return found


def _by_channel(offered: Iterable[Placed]) -> Mapping[str, Sequence[Placed]]:
    """The wheels of each index, by its folder."""
    found: dict[str, list[Placed]] = defaultdict(list)
    for one in offered:
        found[ALL].append(one)
        if one.offer.channel:
            found[one.offer.channel].append(one)
    return found


def _folders(offered: Iterable[Placed]) -> set[str]:
    """The folders of the indexes' pages, those of projects too."""
    channels = _by_channel(offered).items()
    projects = {f"{folder}/{one.offer.project}" for folder, members in channels for one in members}
    return projects | {folder for folder, _ in channels}


def _channel(folder: str, offered: Sequence[Placed]) -> dict[str, bytes]:
    """The pages of one index: a list of projects, and one page for each."""
    projects = defaultdict(list)
    for one in offered:
        projects[one.offer.project].append(one)
    found = {}
    for project, members in projects.items():
        root = "../" * (folder.count("/") + 2)
        place = f"{folder}/{project}"
        found[f"{place}/index.html"] = _render("project.html", project=project, links=[
            _link(one, root) for one in members
        ])  # fmt: skip
        found[f"{place}/index.json"] = _json(
            {
                "meta": {"api-version": _API},
                "name": project,
                "versions": list(dict.fromkeys(one.offer.version for one in members)),
                "files": [_file(one, root) for one in members],
            }
        )
    found[f"{folder}/index.html"] = _render("projects.html", title=folder, projects=list(projects))
    found[f"{folder}/index.json"] = _json(
        {"meta": {"api-version": _API}, "projects": [{"name": name} for name in projects]}
    )
    return found


def _link(one: Placed, root: str) -> dict[str, Any]:
    offer = one.offer
    return {
        "href": f"{one.url(root)}#sha256={offer.sha256}",
        "filename": offer.filename,
        "requires_python": offer.requires_python,
        "metadata": f"sha256={offer.metadata}" if one.beside else "",
    }


def _file(one: Placed, root: str) -> dict[str, Any]:
    """As PEP 691 and 700 have it. There is no upload-time: nothing in a wheel tells it."""
    offer = one.offer
    metadata = {"sha256": offer.metadata} if one.beside else False
    return {
        "filename": offer.filename,
        "url": one.url(root),
        "hashes": {"sha256": offer.sha256},
        "size": offer.size,
        **({"requires-python": offer.requires_python} if offer.requires_python else {}),
        "core-metadata": metadata,
        "dist-info-metadata": metadata,
    }


def finder_page(offered: Sequence[Placed]) -> bytes:
    """The page that asks for the GPU; it needs no server and no other file."""
    data = {
        "gpus": [
            {"capability": capability, "names": names}
            for capability, names in gpu_names(frozenset({"x86_64", "aarch64"})).items()
        ],
        "wheels": [_row(one) for one in offered],
    }
    # In a script element, `</script>` and `<!--` must not be seen.
    text = json.dumps(data, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
    return _render("finder.html", data=text)


def _row(one: Placed) -> dict[str, Any]:
    offer = one.offer
    return {
        **offer.model_dump(mode="json", exclude={"metadata", "papers"}),
        "url": one.url(""),
        "channel": offer.channel,
        "refused": _refused(offer.requires_python),
        "papers": {
            suffix: f"files/{quote(offer.filename)}{suffix}" for suffix in sorted(offer.papers)
        },
    }


def _refused(requires_python: str) -> list[int]:
    """The minor numbers of Python 3 of which METADATA takes no release."""
    try:
        taken = SpecifierSet(requires_python)
    except InvalidSpecifier:
        return []
    releases = ("0", "1", "5", "99")  # >=3.9.1 takes some of 3.9
    return [
        minor
        for minor in range(_NEWEST_PYTHON)
        if not any(taken.contains(f"3.{minor}.{release}") for release in releases)
    ]


@functools.cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("fatwheel.publish", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(name: str, **values: Any) -> bytes:
    return _templates().get_template(f"{name}.jinja").render(**values).encode()


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _list_bytes(offered: Sequence[Placed]) -> bytes:
    return _json(_List(wheels=tuple(offered)).model_dump(mode="json", by_alias=True))


# -- writing ---------------------------------------------------------------------------------------


def _copied(
    found: Sequence[Found], before: Sequence[Placed], out: Path, *, copy_wheels: bool
) -> Iterator[str]:
    """Put each wheel and the texts beside it into the site; what was written."""
    here = {one.offer.filename: one.offer.sha256 for one in before if not one.base}
    for one in found:
        name = f"files/{one.offer.filename}"
        for suffix, data in one.texts.items():
            if _put(out, name + suffix, data):
                yield name + suffix
        is_here = here.get(one.offer.filename) == one.offer.sha256
        if copy_wheels and _put_wheel(out / name, one, is_here=is_here):
            yield name


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise files.disk_error(error, "write the site", path, "--out FOLDER") from error


def _put_wheel(target: Path, one: Found, *, is_here: bool) -> bool:
    """Copy a wheel where it is not there already; FormatError where it is not what was read.

    is_here: whether the site offers these bytes. Another wheel may have its name and size.
    """
    if is_here and target.exists() and target.stat().st_size == one.offer.size:
        return False
    with _writing(target), one.path.open("rb") as source, files.replacing(target) as stream:
        sha256, _ = files.copy(source, stream)
        if sha256 != one.offer.sha256:
            raise FormatError("it changed while it was read", where=str(one.path))
    return True


def _put(out: Path, name: str, data: bytes) -> bool:
    """Write a file of the site where it is not there already, with these bytes."""
    path = out / name
    if files.read(path) == data:
        return False
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as stream:
            stream.write(data)
    return True


def _remove_stale(out: Path, before: Sequence[Placed], offered: Sequence[Placed]) -> list[str]:
    """Remove what the site had for wheels that it offers no more."""
    there = {one.offer.filename for one in offered}
    gone = [one for one in before if one.offer.filename not in there]
    names = [
        f"{folder}/{page}"
        for folder in sorted(_folders(before) - _folders(offered))
        for page in ("index.html", "index.json")
    ]
    for one in gone:
        file = f"files/{one.offer.filename}"
        names += [file, file + METADATA, *(file + suffix for suffix in one.offer.papers)]
    removed = []
    for name in names:
        with _writing(out / name):
            if files.remove(out / name):
                removed.append(name)
    return removed
