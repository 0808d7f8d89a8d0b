"""Compares the pins of files and images with what is published.

Nothing is fetched but listings, unless nobody publishes a file's sha256 or size: then the file is
fetched once, and what came counts as published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from unearth import Link

from ..config.load import dotted
from ..config.mistakes import Key
from ..config.pinned import Download, Package
from ..config.schema import filename_of
from ..config.toolchain import Base, Document, Toolchain
from ..events import Emit, Progress
from ..provision.msvc import VISUAL_STUDIO
from ..storage import cache, files
from ..toolchain.access import PINNED
from ..toolchain.download import LABEL, PartialFile, TooLongError
from ..toolchain.homes import VARIABLE, is_accepted
from ..toolchain.index import Index
from ..toolchain.pipconfig import RefusedError
from .listings import Asker
from .published import (
    ChangedError,
    HostBuild,
    Values,
    checked,
    image_digest,
    image_for_host,
    index_values,
    manifest_values,
    packages_in,
    page_values,
    parse_reference,
    sha256_of,
)

RIGHT, FILLED, OPEN, MOVED, UNREACHABLE = "right", "filled", "open", "moved", "unreachable"
STATES = (RIGHT, FILLED, OPEN, MOVED, UNREACHABLE)

_LARGEST = 32 << 30  # bytes of a file whose size nobody publishes

Pin = Package | Download | Base


@dataclass(frozen=True)
class PinState:
    """One pinned file or image: the values in the toolchain's file, and those that are published.

    key: where it stands in the file. name: its file name or reference. state: 'right'; 'filled'
    (to be written into the file); 'open' (not known, or known and not to be written); 'moved'
    (something else is published than is pinned); 'unreachable'. note: what else there is to say.
    """

    key: Key
    name: str
    state: str
    pinned: Values
    found: Values
    note: str = ""

    @property
    def new(self) -> Values:
        """What is published and not pinned."""
        return {name: value for name, value in self.found.items() if name not in self.pinned}

    def to_json(self) -> dict[str, Any]:
        return {
            "key": dotted(self.key),
            "name": self.name,
            "state": self.state,
            "pinned": self.pinned,
            "found": self.found,
            "note": self.note,
        }


def compare_listed(
    key: Key, file: str, pinned: Values, links: Iterable[Link], absent: str
) -> PinState:
    """A wheel whose sha256 is pinned, and what an index lists of it. absent: what to say where that
    is nothing."""
    if not links:
        return PinState(key, file, UNREACHABLE, pinned, {}, absent)
    found = sha256_of(links, str(pinned["sha256"]))
    moved = found.get("sha256", pinned["sha256"]) != pinned["sha256"]
    return PinState(key, file, MOVED if moved else RIGHT, pinned, found)


# The package with cl.exe. Of those that are known, 14.44.35228 says of itself 19.44.35228.
_COMPILER = ".tools.hostx64.targetx64.base"


def _other_cl(found: PinState, cl: str) -> str:
    """What to say where a package's version is likely that of another compiler than is named."""
    version = str(found.found.get("version", ""))
    likely = f"19.{version.partition('.')[2]}"
    if not version or likely == cl:
        return found.note
    return f"its cl says {likely}, by its version, and the file says that it is {cl}"


class Comparer:
    """Asks for one pin after the other. downloads: None where nothing may be fetched or written.

    host: of which Windows images must be, None for the newest.
    """

    def __init__(
        self, index: Index, downloads: Path | None, emit: Emit, host: HostBuild | None = None
    ) -> None:
        self._index = index
        self._downloads = downloads
        self._emit = emit
        self._host = host
        self._manifest: Mapping[str, Values] = {}
        self._ask = Asker(index).ask

    def compare(self, toolchain: Toolchain) -> Iterator[PinState]:
        """A finding for each pin, and one for a manifest of CUDA that cannot be read."""
        yield from self._read_manifest(toolchain.cuda_manifest)
        pins = dict(toolchain.pins())
        msvc = toolchain.msvc
        if msvc and msvc.channel and msvc.catalogue:
            payloads = {key: pin for key, pin in pins.items() if key[:2] == ("msvc", "payloads")}
            yield from self.compare_msvc(msvc.channel, msvc.catalogue, payloads.items(), msvc.cl)
            pins = {key: pin for key, pin in pins.items() if key not in payloads}
        yield from self.compare_pins(pins.items())

    def compare_msvc(
        self, channel: Document, catalogue: Document, payloads: Iterable[tuple[Key, Pin]], cl: str
    ) -> Iterator[PinState]:
        """A finding for each package of MSVC, and one for a catalogue that cannot be read or is
        another. cl: what its compiler is to say."""
        known: Mapping[str, Values] | None = None
        try:
            read = partial(packages_in, channel, catalogue, self._index)
            known = self._ask(catalogue.url, read)
        except ChangedError as error:
            pinned: Values = {"sha256": error.document.sha256}
            name = filename_of(error.document.url)
            yield PinState(("catalogue",), name, MOVED, pinned, {"sha256": error.found}, str(error))
        except RefusedError as error:
            name = filename_of(catalogue.url)
            yield PinState(("catalogue",), name, UNREACHABLE, {}, {}, str(error))
        for key, item in payloads:
            assert isinstance(item, Download)
            if item.url and not item.filename.endswith(VISUAL_STUDIO):
                yield self._file(key, item, with_terms=True)
            elif known is not None:
                found = self._payload(key, item, known.get(item.name.lower()))
                is_compiler = item.name.lower().endswith(_COMPILER)
                yield replace(found, note=_other_cl(found, cl)) if is_compiler else found

    def _payload(self, key: Key, item: Download, said: Values | None) -> PinState:
        pinned: Values = {
            name: value
            for name in ("version", "url", "size", "sha256")
            if (value := getattr(item, name))
        }
        try:
            if said is None:
                raise RefusedError("the catalogue does not list it")
            found = checked(item.name, said)
            url = str(found["url"])
            length = self._ask(url, partial(self._index.length, url))
        except RefusedError as error:
            return PinState(key, item.name, UNREACHABLE, pinned, {}, str(error))
        # In the order in which the file has them.
        size: Values = {} if length is None else {"size": length}
        found = {"version": found["version"], "url": url, **size, "sha256": found["sha256"]}
        return PinState(key, item.name, self._state(pinned, found), pinned, found)

    def compare_pins(self, pins: Iterable[tuple[Key, Pin]]) -> Iterator[PinState]:
        """A finding for each of some pins, by where they stand."""
        for key, item in pins:
            yield self._image(key, item) if isinstance(item, Base) else self._file(key, item)

    def _read_manifest(self, url: str) -> Iterator[PinState]:
        self._manifest = {}
        if not url:
            return
        try:
            self._manifest = self._ask(url, partial(manifest_values, url, self._index))
        except RefusedError as error:
            name = url.rpartition("/")[2]
            yield PinState(("cuda_manifest",), name, UNREACHABLE, {}, {}, str(error))

    def _image(self, key: Key, base: Base) -> PinState:
        pinned: Values = {"digest": base.digest} if base.digest else {}
        image = parse_reference(base.reference)
        note = ""
        try:
            if self._host is not None:
                image = self._ask(
                    image.url, partial(image_for_host, image, self._host, self._index)
                )
                note = f"that of {image.tag}, for --host-build"
            digest = self._ask(image.manifest, partial(image_digest, image, self._index))
        except RefusedError as error:
            return PinState(key, base.reference, UNREACHABLE, pinned, {}, str(error))
        found: Values = {"digest": digest}
        return PinState(key, base.reference, self._state(pinned, found), pinned, found, note)

    def _file(self, key: Key, item: Package | Download, with_terms: bool = False) -> PinState:
        """with_terms: Microsoft's must have been accepted before it is fetched."""
        pinned: Values = {"size": item.size} if item.size else {}
        if item.sha256:
            pinned["sha256"] = item.sha256
        try:
            found, note = self._found(item, with_terms)
        except RefusedError as error:
            return PinState(key, item.filename, UNREACHABLE, pinned, {}, str(error))
        state = self._state(pinned, found)
        if state != MOVED and {"size", "sha256"} - {*pinned, *found}:
            state = OPEN
        return PinState(key, item.filename, state, pinned, found, note)

    def _state(self, pinned: Values, found: Values) -> str:
        if any(name in pinned and pinned[name] != value for name, value in found.items()):
            return MOVED
        if set(found) <= set(pinned):
            return RIGHT
        return OPEN if self._downloads is None else FILLED

    def _found(self, item: Package | Download, with_terms: bool) -> tuple[Values, str]:
        """What is published of a file, and a remark."""
        if isinstance(item, Package) and not item.url:
            found = index_values(item, self._index, self._ask)
            return found, "" if found else "the index gives no sha256"
        found = self._published(item)
        length = self._ask(item.url, partial(self._index.length, item.url))
        if length is not None:
            found["size"] = length
        missing = [
            name
            for name, known in (("size", item.size), ("sha256", item.sha256))
            if not known and name not in found
        ]
        if not missing:
            return found, "" if "sha256" in found else "its sha256 is not published"
        remark = f"its {' and '.join(missing)} is not published"
        if self._downloads is None:
            return found, f"{remark}: without --check, it is fetched once"
        if with_terms and not is_accepted(cache.cache_folder()):
            accept = f"once you have accepted Microsoft's terms: {VARIABLE}=1"
            return found, f"{remark}, and it is fetched to find out {accept}"
        return self._fetched(item, found, self._downloads), f"{remark}: fetched once to find out"

    def _published(self, item: Package | Download) -> Values:
        if isinstance(item, Download):
            return dict(self._manifest.get(item.url, {}))
        return page_values(item, self._index, self._ask)

    def _fetched(self, item: Package | Download, found: Values, downloads: Path) -> Values:
        """What the file itself says; it stays where `fetch` looks for it."""
        incoming = files.Incoming(downloads / "incoming")
        total = found.get("size", 0)
        assert isinstance(total, int)
        try:
            with incoming.file() as path:
                with path.open("xb") as stream:
                    part = PartialFile(stream, total or _LARGEST)
                    self._ask(item.url, partial(self._receive, item, part, total))
                    files.sync_file(stream)
                files.move(path, downloads / part.sha256 / item.filename)
        except TooLongError:
            raise RefusedError(f"the server sends more than {total or _LARGEST} bytes") from None
        except OSError as error:
            raise files.disk_error(
                error, f"keep {item.filename}", downloads, f"{cache.VARIABLE}=FOLDER"
            ) from error
        if found.get("sha256", part.sha256) != part.sha256:
            raise RefusedError(f"the file received has sha256 {part.sha256}, not the published one")
        return {**found, "size": part.size, "sha256": part.sha256}

    def _receive(self, item: Package | Download, part: PartialFile, total: int) -> None:
        def note(size: int) -> None:
            self._emit(Progress(LABEL, size, total))

        part.receive(self._index, Link(item.url), PINNED, note)
