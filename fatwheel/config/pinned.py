"""What every pinned file is known by, and the form that all tables of recipes, toolchains and locks
have.

Each thing that files and code tell of is typed once, here, in `toolchain` and in `recipe`. These
are the types of TOML files (`schema` adds the shapes that only TOML has), of locks
(`provenance.lock`) and of code. pydantic reads and writes them by their annotations. Code that
makes one is not checked. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from . import fields

# What `invoke lock` has not filled in yet, and sizes that nobody publishes, are 0 or ''.
Size = fields.OrZero[fields.Bytes]
Sha256 = fields.OrEmpty[fields.Sha256]
Url = fields.OrEmpty[fields.Url]
Digest = fields.OrEmpty[fields.Digest]
Folder = fields.OrEmpty[fields.Folder]


@dataclass(frozen=True)
class Table:
    """A table of TOML, an object of JSON: no key but its fields, no value of another type."""

    # The aliases are for TOML, which is read with by_alias.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", validate_by_name=True, validate_by_alias=False
    )


@dataclass(frozen=True)
class PinnedWheel(Table):
    """A wheel as recipes name it.

    An empty sha256 is not known yet: `invoke lock` fills it in, and until then the file is not
    `locked` and is never used. A size of 0 is not known either; some indexes publish none.
    """

    name: Annotated[fields.Project, Field(description="the package's name")]
    version: Annotated[fields.AnyVersion, Field(description="the package's version")]
    filename: Annotated[
        fields.WheelFile,
        Field(
            validation_alias="file",
            serialization_alias="file",
            description="the wheel's file name, as the index lists it",
        ),
    ]
    size: Annotated[Size, Field(description="the wheel's size in bytes")]
    sha256: Annotated[Sha256, Field(description="the wheel's sha256")]

    @property
    def locked(self) -> bool:
        return bool(self.sha256)


@dataclass(frozen=True)
class Package(PinnedWheel):
    """One pinned file of a package index, by name, size and sha256.

    role: 'compiler' (its bytes decide what code is made), 'build' (setuptools, ninja …),
    'runtime' (torch and the libraries that it loads), 'installer' (pip, which puts the others into
    an image; no part of an environment), 'source' (a recipe's sdist) or 'subject' (what tests and
    the benchmark work on).
    url:  where it lies, if that is not the user's own package index; else ''.
    hosts: None in this checkout's own files; of a pin in a lock from elsewhere, the only hosts
    that its url may name.
    """

    role: Annotated[fields.Role, Field(description="'compiler', 'build', 'runtime' or 'installer'")]
    url: Url = ""
    hosts: fields.Here[frozenset[str] | None] = field(default=None, compare=False)


@dataclass(frozen=True)
class Sdist(Package):
    """A source distribution, which is a package's file, too."""

    filename: fields.SdistFile
    role: fields.SourceRole


@dataclass(frozen=True)
class Download(Table):
    """One pinned file that is no package: an archive of CUDA, a part of MSVC, an interpreter.

    size, sha256 and hosts are as for a Package. version and url may be '' until they are known, as
    those may. filename is what it is called on this machine and
    in an image's build context.
    """

    name: fields.PartName
    version: fields.OrEmpty[fields.AnyVersion]
    url: Url
    filename: fields.File
    size: Size
    sha256: Sha256
    hosts: fields.Here[frozenset[str] | None] = field(default=None, compare=False)

    @property
    def locked(self) -> bool:
        return bool(self.sha256)


@dataclass(frozen=True)
class DebianFile(Download):
    """A package of Debian, on whatever mirror the user's own configuration names. path: there."""

    path: str = ""


Packages = Annotated[tuple[Package, ...], fields.Many]
