"""wheels.json of a site: what it offers, and where the files are. It is what a site was made from,
so that wheels which are there already need not be read again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ..errors import FatwheelError, FormatError, UsageError
from ..storage import files
from ..storage.documents import read_value
from .offers import Offer, Sha256

LIST = "wheels.json"
_MOST = 256 << 20  # bytes of wheels.json; that of 2,000 wheels has 3 MiB
_MOST_VALUES = 5_000_000
_BASE = re.compile(r"https?://[A-Za-z0-9._~:/\[\]@%+,=-]+")


_Value = Annotated[str, StringConstraints(pattern=r"^[0-9]{2,3}_(real|virtual)$")]


class Variant(BaseModel):
    """What makes a wheel a variant of another. of: the sha256 of that. cuda: the oldest that the
    driver must know. sm_arch: values of the provider of variants, any of which will do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Sha256
    cuda: Annotated[str, StringConstraints(pattern=r"^[0-9]{2}\.[0-9]{1,2}$")]
    sm_arch: Annotated[tuple[_Value, ...], Field(min_length=1, max_length=100)]

    @property
    def label(self) -> str:
        """`cu124_sm86`, `cu128_ptx100_ptx120`: equal ones say the same."""
        said = (value.split("_") for value in self.sm_arch)
        names = (f"{'sm' if kind == 'real' else 'ptx'}{number}" for number, kind in said)
        return "_".join([f"cu{self.cuda.replace('.', '')}", *names])


class Placed(BaseModel):
    """An offer, and where its file is: `files/` of the site, or under a base URL.

    base: '' for the site itself. beside: whether METADATA can be had at the file's URL with
    `.metadata` after it. variant: where it is a variant of another wheel of the site.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    offer: Offer
    base: Annotated[str, StringConstraints(max_length=2000)] = ""
    beside: bool = True
    variant: Variant | None = None

    def url(self, root: str) -> str:
        """Of the file, for a page from which the site's top is at `root` (`../../`)."""
        return (self.base or f"{root}files/") + quote(self.offer.filename)


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_: Literal[1] = Field(default=1, alias="schema")
    wheels: Annotated[tuple[Placed, ...], Field(max_length=100_000)]


def checked_base(url: str) -> str:
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


def read_list(out: Path) -> tuple[Placed, ...]:
    """What the site offers already."""
    path = out / LIST
    data = files.read_plain(path, _MOST + 1)
    if data is None and os.path.lexists(path):
        raise FormatError("it is no file, but a link, a folder or a pipe", where=str(path))
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
        return parse_list(data, str(path))
    except FormatError as error:
        raise FormatError(
            error.what,
            where=error.where,
            hint="delete it and name all wheels of the site once more",
        ) from error


def parse_list(data: bytes, where: str) -> tuple[Placed, ...]:
    """What a wheels.json offers, whoever wrote it. FormatError where it is none."""
    try:
        content = read_value(data, where, _MOST, _MOST_VALUES)
        found = _List.model_validate(content).wheels
        for one in found:
            Version(one.offer.version)
            if one.base != checked_base(one.base):
                raise FormatError(f"{one.base!r:.100} does not end with a slash")
        return found
    except (ValueError, FatwheelError) as error:  # a number of 5000 digits is no version, either
        raise FormatError(
            f"it is damaged or of another version of fatwheel: {str(error).splitlines()[0]}",
            where=where,
        ) from error


def joined(before: Sequence[Placed], new: Sequence[Placed]) -> list[Placed]:
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


def ordered(placed: Iterable[Placed]) -> tuple[Placed, ...]:
    return tuple(
        sorted(
            placed,
            key=lambda one: (one.offer.project, Version(one.offer.version), one.offer.filename),
        )
    )


def list_bytes(offered: Sequence[Placed]) -> bytes:
    """The file."""
    return json_bytes(_List(wheels=tuple(offered)).model_dump(mode="json", by_alias=True))


def json_bytes(content: Any) -> bytes:
    """JSON as all files of a site have it."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
