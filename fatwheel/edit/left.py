"""Device code that editing leaves as it is, because libraries load it themselves.

Of containers and cubins among a library's data (`fatbin.embedded`) nothing says how the library
finds them, how large it takes them to be, or which it asks for on which GPU. A cubin in a file of
its own is asked for by its name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from .. import text
from ..arch import Arch
from ..fatbin.binary import Binary
from ..fatbin.embedded import Bound, Images, Place, find_embedded, place_of_cubin, total_size

_SHOWN = 5  # sections of one file


class Left:
    """What is left in the files of a wheel, or in a single file."""

    def __init__(self) -> None:
        self._embedded: dict[str, tuple[Place, ...]] = {}
        self._cubins: list[Place] = []
        self._bound = Bound()

    def look(self, name: str, data: memoryview, binary: Binary) -> None:
        """Look at one file; FormatError where it is malformed."""
        if binary.format == "cubin":
            self._cubins.append(place_of_cubin(data))
        elif places := find_embedded(data, binary.format, self._bound):
            self._embedded[name] = places

    def __bool__(self) -> bool:
        return bool(self._embedded or self._cubins)

    @property
    def archs(self) -> set[tuple[str, Arch]]:
        """Kind ('elf', 'ptx' …) and architecture of its images."""
        return {(images.kind, images.arch) for images in self._images()}

    def lines(self) -> Iterator[str]:
        """What libraries load themselves, and its size: a line for each, and one for all cubins."""
        for name, places in self._embedded.items():
            shown = [f"{place.title} ({text.size(place.size)})" for place in places[:_SHOWN]]
            if len(places) > _SHOWN:
                shown.append(f"in {len(places) - _SHOWN:,} more sections")
            yield f"{name}: {' and '.join(shown)}"
        if self._cubins:
            noun = "cubin file" if len(self._cubins) == 1 else "cubin files"
            size = text.size(total_size(self._cubins))
            yield f"{len(self._cubins):,} {noun} ({size})"

    def notes(self) -> Iterator[str]:
        """The same, for who had it edited."""
        for line in self.lines():
            yield f"left as it is, because libraries load it themselves: {line}"

    def _images(self) -> Iterator[Images]:
        for place in itertools.chain(*self._embedded.values(), self._cubins):
            yield from place.images
