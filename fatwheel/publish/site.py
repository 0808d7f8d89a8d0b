"""Writes an index of wheels as a static site: `invoke index`.

    OUT/index.html                        the finder: which wheel for which GPU
    OUT/wheels.json                       all offers; what the site was made from
    OUT/simple/PROJECT/index.html, .json  the index of all wheels, as installers read it
    OUT/cu130/torch2.11/PROJECT/…         the same for one CUDA and torch
    OUT/files/NAME.whl, NAME.whl.metadata the wheels, and what is shown beside them
    OUT/files/NAME-VERSION-variants.json  which variants there are of a version (`variants`)

Formats: PyPA's "Simple repository API" (PEP 503, 691, 700) and "Core metadata in indexes" (PEP 658,
714). All links are relative, except those to wheels under a base URL. The same wheels make the same
bytes. Files are replaced one by one, what pages refer to before the pages, and wheels.json last: a
site that was interrupted is completed by the next run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ..errors import FatwheelError, FormatError, UsageError
from ..events import Emit, Note, step
from ..pages import make_page, render
from ..provenance.record import built_how
from ..storage import files
from ..storage.cache import cache_folder
from ..storage.documents import json_bytes
from ..verify.contents import gpu_names
from .offers import (
    LIST,
    METADATA,
    Placed,
    ReadWheel,
    checked_base,
    joined,
    list_bytes,
    ordered,
    read_list,
    read_offer,
)
from .variants import Added, add_variants, document_of, documents

ALL = "simple"
_API = "1.1"  # of the simple API: with versions and sizes (PEP 700)
_NEWEST_PYTHON = 40  # a minor number that no Python has yet


@dataclass(frozen=True)
class Request:
    """base_url: where the wheels are, or '' to copy them into the site. beside: whether their
    METADATA files are there as well. only: whether wheels that are not named leave the site.
    variants: whether the named ones get variants."""

    base_url: str = ""
    beside: bool = False
    only: bool = False
    variants: bool = False


@dataclass(frozen=True)
class Written:
    """What became of a site. Paths are relative to it. notes: sentences for the user."""

    folder: Path
    wheels: tuple[Placed, ...]
    channels: tuple[str, ...]
    written: tuple[str, ...]
    removed: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `invoke index --json` prints it (index.schema.json)."""
        return {
            "folder": str(self.folder),
            "channels": list(self.channels),
            "wheels": [one.model_dump(mode="json") for one in self.wheels],
            "written": list(self.written),
            "removed": list(self.removed),
            "notes": list(self.notes),
        }


def write_site(wheels: Sequence[Path], out: Path, request: Request, emit: Emit) -> Written:
    """Add wheels to the site in a folder, which is made if need be.

    UsageError for no wheel, a base URL that is none, two wheels of one name with different bytes,
    and a folder with other things in it; FormatError for a wheel that cannot be offered. All of the
    wheels' mistakes are told at once, and nothing is written then.
    """
    base = checked_base(request.base_url)
    note = Note("another `index` is running: waiting for it")
    # Of two that read one wheels.json, the second to write it would drop what the first has added.
    with files.locked(cache_folder() / "index.lock", waiting=lambda: emit(note)):
        return _write_site(wheels, out, base, request, emit)


def _write_site(
    wheels: Sequence[Path], out: Path, base: str, request: Request, emit: Emit
) -> Written:
    before = read_list(out)
    if not wheels and not before:
        raise UsageError("which wheels?", hint="name at least one: invoke index dist/*.whl")
    found = _read_all(wheels, emit)
    beside = request.beside or not base
    placed = [Placed(offer=one.offer, base=base, beside=beside) for one in found]
    kept = () if request.only else before
    offered = ordered(joined(kept, placed))
    added = Added()
    if request.variants:
        named = list(zip(found, placed, strict=True))
        added = add_variants(named, offered, before, out / "files", emit)
        offered = ordered(joined(offered, added.placed))
    pages = _pages(offered)
    with step(emit, "write"):
        written = [
            *(f"files/{one.offer.filename}" for one in added.made),
            *(name for one in added.made for name in _put_texts(one, out)),
            *_copied(found, before, out, copy_wheels=not base),
            *(name for name, data in pages.items() if _put(out, name, data)),
        ]
        removed = _remove_stale(out, before, offered)
        if _put(out, LIST, list_bytes(offered)):
            written.append(LIST)
    channels = tuple(sorted({one.offer.channel for one in offered} - {""}))
    return Written(out, offered, channels, tuple(written), tuple(removed), tuple(added.notes))


# -- what is on the site ---------------------------------------------------------------------------


def _read_all(wheels: Sequence[Path], emit: Emit) -> list[ReadWheel]:
    found, refused = [], []
    for path in wheels:
        try:
            with step(emit, "read", path.name):
                found.append(read_offer(path))
        except FatwheelError as error:
            refused.append((path, error))
    for one in found:
        for word in one.offer.unproven:
            emit(Note(f"{one.path.name} was {built_how(word)}"))
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


# -- its pages -------------------------------------------------------------------------------------


def _pages(offered: Sequence[Placed]) -> dict[str, bytes]:
    """The site's pages by their paths, those first to which others lead."""
    told = documents(offered)
    found = {f"files/{name}": data for name, data in told.items()}
    for folder, members in sorted(_by_channel(offered).items()):
        found |= _channel(folder, members, told)
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


def _channel(folder: str, offered: Sequence[Placed], told: Mapping[str, bytes]) -> dict[str, bytes]:
    """The pages of one index: a list of projects, and one page for each. told: the documents of
    variants, by name."""
    projects = defaultdict(list)
    for one in offered:
        projects[one.offer.project].append(one)
    found = {}
    for project, members in projects.items():
        root = "../" * (folder.count("/") + 2)
        place = f"{folder}/{project}"
        names = sorted({document_of(one) for one in members if one.variant})
        links = [_link(one, root) for one in members]
        links += [{"href": f"{root}files/{quote(name)}", "filename": name} for name in names]
        found[f"{place}/index.html"] = render("project.html", project=project, links=links)
        found[f"{place}/index.json"] = json_bytes(
            {
                "meta": {"api-version": _API},
                "name": project,
                "versions": list(dict.fromkeys(one.offer.version for one in members)),
                "files": [
                    *(_file(one, root) for one in members),
                    *(_document(name, told[name], root) for name in names),
                ],
            }
        )
    found[f"{folder}/index.html"] = render("projects.html", title=folder, projects=list(projects))
    found[f"{folder}/index.json"] = json_bytes(
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


def _document(name: str, data: bytes, root: str) -> dict[str, Any]:
    """Without its sha256, as in the other page: it changes with every variant that is added, and
    an installer that has an older page must not stop because of that."""
    return {"filename": name, "url": f"{root}files/{quote(name)}", "hashes": {}, "size": len(data)}


def finder_page(offered: Sequence[Placed]) -> bytes:
    """The page that asks for the GPU; it needs no server and no other file.

    Variants are not among its wheels: no command for one file installs them everywhere.
    """
    data = {
        "gpus": [
            {"capability": capability, "names": names}
            for capability, names in gpu_names(frozenset({"x86_64", "aarch64"})).items()
        ],
        "wheels": [_row(one) for one in offered if not one.variant],
    }
    return make_page("finder", data, title="Find your CUDA wheel")


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


# -- writing ---------------------------------------------------------------------------------------


def _copied(
    found: Sequence[ReadWheel], before: Sequence[Placed], out: Path, *, copy_wheels: bool
) -> Iterator[str]:
    """Put each wheel and the texts beside it into the site; what was written."""
    here = {one.offer.filename: one.offer.sha256 for one in before if not one.base}
    for one in found:
        name = f"files/{one.offer.filename}"
        yield from _put_texts(one, out)
        is_here = here.get(one.offer.filename) == one.offer.sha256
        if copy_wheels and _put_wheel(out / name, one, is_here=is_here):
            yield name


def _put_texts(one: ReadWheel, out: Path) -> Iterator[str]:
    for suffix, data in one.texts.items():
        name = f"files/{one.offer.filename}{suffix}"
        if _put(out, name, data):
            yield name


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise files.disk_error(error, "write the site", path, "--out FOLDER") from error


def _put_wheel(target: Path, one: ReadWheel, *, is_here: bool) -> bool:
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
    with _writing(path):
        if files.read_plain(path, len(data) + 1) == data:
            return False
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
    names += [f"files/{name}" for name in sorted(set(documents(before)) - set(documents(offered)))]
    for one in gone:
        file = f"files/{one.offer.filename}"
        names += [file, file + METADATA, *(file + suffix for suffix in one.offer.papers)]
    removed = []
    for name in names:
        with _writing(out / name):
            if files.remove(out / name):
                removed.append(name)
    return removed
