"""What changed between two sets of wheels, as Markdown: `invoke release-notes`.

All of it is read from the wheels: their sizes, their architectures, and whether the machine code of
each kernel is the same as before, which decides whether a user has to measure again.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import Version

from .. import text
from ..compare.device import machine_code
from ..decoders import payload
from ..errors import FormatError, UsageError
from ..events import Emit, step
from ..fatbin.binary import HEAD, is_binary, read_binary
from ..fatbin.container import Entry
from ..fatbin.images import is_readable
from ..fatbin.stitch import image_name
from ..provenance.record import built_how
from ..storage.mapped import let_go
from ..wheels.archive import Wheel, open_wheel
from .offers import Offer, read_offer

# By image (`sm_80`): how often each function's code is in a wheel, by name and sha256.
Code = Mapping[str, Counter[tuple[str, str]]]


@dataclass(frozen=True)
class ImageChange:
    """One architecture that a wheel and the one before it have: how many functions there are now,
    how many of them have the same code as before, and how many are no longer there."""

    image: str
    functions: int
    same: int
    gone: int


@dataclass(frozen=True)
class Replacement:
    """A wheel and the one that it takes the place of.

    new: None for a wheel that has no successor. old: None for a wheel that had no predecessor.
    code: of the images that both have; empty where the files are the same.
    """

    new: Offer | None
    old: Offer | None
    code: tuple[ImageChange, ...] = ()

    @property
    def either(self) -> Offer:
        one = self.new or self.old
        assert one is not None
        return one

    @property
    def added(self) -> list[str]:
        """Images that the wheel before did not have."""
        if not self.new or not self.old:
            return []
        return [image for image in self.new.images if image not in self.old.images]

    @property
    def removed(self) -> list[str]:
        """Images that only the wheel before has."""
        if not self.new or not self.old:
            return []
        return [image for image in self.old.images if image not in self.new.images]

    def to_json(self) -> dict[str, Any]:
        """As `invoke release-notes --json` prints it (notes.schema.json)."""
        return {
            "project": self.either.project,
            "new": _named(self.new),
            "old": _named(self.old),
            "added": self.added,
            "removed": self.removed,
            "code": [vars(image) for image in self.code],
        }


def _named(offer: Offer | None) -> dict[str, Any] | None:
    if offer is None:
        return None
    keep = {"filename", "version", "sha256", "size", "cuda", "torch", "images"}
    keep |= {"unproven"} if offer.unproven else set()
    return offer.model_dump(mode="json", include=keep)


@dataclass(frozen=True)
class _Wheel:
    """A wheel that was read; of its code only what is asked for."""

    path: Path
    offer: Offer

    def code(self) -> Code:
        with open_wheel(self.path) as wheel:
            return _code_of(wheel)


def read_changes(new: Sequence[Path], old: Sequence[Path], emit: Emit) -> tuple[Replacement, ...]:
    """What became of each wheel, by project and file name.

    A wheel takes the place of the newest one of the same project and tags, for the same CUDA and
    torch if there is one. UsageError for no wheel at all; FormatError for one that is damaged.
    """
    if not new:
        raise UsageError("which wheels?", hint="name those of the release: dist/*.whl")
    now, before = _read(new, emit), _read(old, emit)
    changes, used = [], set()
    for wheel in now:
        former = _predecessor(wheel.offer, before)
        if former:
            used.add(former.path)
        with step(emit, "compare", wheel.path.name):
            changes.append(_change(wheel, former))
    # A release may hold one project of several.
    projects = {wheel.offer.project for wheel in now}
    left = [
        Replacement(None, wheel.offer)
        for wheel in before
        if wheel.path not in used and wheel.offer.project in projects
    ]
    return tuple(
        sorted((*changes, *left), key=lambda one: (one.either.project, one.either.filename))
    )


def _read(paths: Iterable[Path], emit: Emit) -> list[_Wheel]:
    found = []
    for path in paths:
        with step(emit, "read", path.name):
            found.append(_Wheel(path, read_offer(path).offer))
    return found


def _predecessor(offer: Offer, before: Sequence[_Wheel]) -> _Wheel | None:
    alike = [
        wheel
        for wheel in before
        if (wheel.offer.project, wheel.offer.tags) == (offer.project, offer.tags)
    ]
    same_channel = [wheel for wheel in alike if wheel.offer.channel == offer.channel]
    return max(same_channel or alike, key=lambda one: Version(one.offer.version), default=None)


def _change(wheel: _Wheel, former: _Wheel | None) -> Replacement:
    if former is None:
        return Replacement(wheel.offer, None)
    if former.offer.sha256 == wheel.offer.sha256:
        return Replacement(wheel.offer, former.offer)
    now, before = wheel.code(), former.code()
    code = tuple(
        ImageChange(
            image,
            functions=now[image].total(),
            same=(now[image] & before[image]).total(),
            gone=len({name for name, _ in before[image]} - {name for name, _ in now[image]}),
        )
        for image in now
        if image in before
    )
    return Replacement(wheel.offer, former.offer, code)


# -- the code of a wheel ---------------------------------------------------------------------------


def _code_of(wheel: Wheel) -> Code:
    found: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for member in wheel.members:
        if not is_binary(wheel.start(member.name, HEAD)):
            continue
        with wheel.mapped(member.name) as data:
            try:
                for entry in _entries(data):
                    found[image_name(entry)].update(_functions(entry))
            except FormatError as error:
                raise error.within(member.name) from error
    return found


def _entries(data: memoryview) -> Iterator[Entry]:
    for container in read_binary(data).containers:
        yield from (entry for entry in container.entries if is_readable(entry))
        let_go(data)


def _functions(entry: Entry) -> Iterator[tuple[str, str]]:
    """Names and sha256 of the functions of a cubin; PTX counts as one, without a name."""
    image = payload(entry)
    if entry.kind == "elf":
        yield from machine_code(image)
        return
    yield "", hashlib.sha256(bytes(image).rstrip(b"\0")).hexdigest()


# -- Markdown --------------------------------------------------------------------------------------


@dataclass
class _Section:
    """What is said of one project."""

    made: list[Replacement] = field(default_factory=list)
    gone: list[Replacement] = field(default_factory=list)


def markdown(changes: Sequence[Replacement]) -> str:
    """The notes of a release: a section for each project. An Offer has no text that Markdown or
    HTML would read as its own."""
    sections: dict[str, _Section] = defaultdict(_Section)
    for one in changes:
        section = sections[one.either.project]
        (section.made if one.new else section.gone).append(one)
    return "\n".join(
        line for project, section in sections.items() for line in _section(project, section)
    )


def _section(project: str, section: _Section) -> Iterator[str]:
    yield f"## {_heading(project, section)}"
    yield ""
    news = list(_news(section.made))
    yield from news
    if news:
        yield ""
    if section.made:
        yield "| wheel | size | GPU code | compared with before |"
        yield "|---|---|---|---|"
        yield from map(_row, section.made)
        yield ""
    if section.gone:
        yield "Not in this release:"
        yield ""
        yield from (f"- `{one.either.filename}`" for one in section.gone)
        yield ""


def _heading(project: str, section: _Section) -> str:
    def public(offers: Iterable[Offer | None]) -> str:
        versions = {Version(offer.version).public for offer in offers if offer}
        return ", ".join(sorted(versions, key=Version))

    now = public(one.new for one in section.made)
    before = public(one.old for one in (*section.made, *section.gone))
    if not now:
        return project
    return f"{project} {now}" + (f" (before: {before})" if before not in ("", now) else "")


def _news(made: Sequence[Replacement]) -> Iterator[str]:
    """Architectures that came or went, and how many wheels say so where not all do; and wheels
    that were not built as nvcc by itself does."""
    came = Counter(image for one in made for image in one.added)
    went = Counter(image for one in made for image in one.removed)
    for words, counts in (("New", came), ("No longer there", went)):
        if counts:
            named = [
                image if count == len(made) else f"{image} (in {text.count(count, 'wheel')})"
                for image, count in counts.items()
            ]
            yield f"- {words}: code for {', '.join(named)}"
    for one in made:
        for word in one.new.unproven if one.new else ():
            yield f"- `{one.either.filename}` was {built_how(word)}"


def _row(one: Replacement) -> str:
    assert one.new is not None
    images = [f"**{image}**" if image in one.added else image for image in one.new.images]
    cells = [f"`{one.new.filename}`", _size(one), ", ".join(images) or "none", _compared(one)]
    return f"| {' | '.join(cells)} |"


def _size(one: Replacement) -> str:
    assert one.new is not None
    size = text.size(one.new.size)
    if one.old is None or one.old.size == one.new.size:
        return size
    sign = "+" if one.new.size > one.old.size else "−"
    return f"{size} ({sign}{text.size(abs(one.new.size - one.old.size))})"


def _compared(one: Replacement) -> str:
    if one.new is None or one.old is None:
        return "new"
    if one.new.sha256 == one.old.sha256:
        return "the same file"
    by_words: dict[str, list[str]] = defaultdict(list)
    for image in one.code:
        by_words[_code_in_words(image)].append(image.image)
    if not by_words:
        return "other bytes; no GPU code that both have"
    if len(by_words) == 1 and not one.added:
        [words] = by_words
        return words
    return "; ".join(f"{', '.join(images)}: {words}" for words, images in by_words.items())


def _code_in_words(image: ImageChange) -> str:
    if image.image.startswith("compute"):
        return "the same PTX" if image.same == image.functions and not image.gone else "other PTX"
    if image.same == image.functions and not image.gone:
        return f"the same machine code ({text.count(image.functions, 'function')})"
    words = f"{image.functions - image.same} of {text.count(image.functions, 'function')} changed"
    return words + (f", {image.gone} gone" if image.gone else "")
