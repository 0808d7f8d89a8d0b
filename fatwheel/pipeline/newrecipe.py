"""Writes a new recipe: `invoke recipe`.

The source is pinned and read, what the build requires is locked, and the build is captured. From
what that shows the recipe is written, with comments for all that only its author can know.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import compat32
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename
from packaging.version import InvalidVersion, Version
from pydantic import ValidationError
from unearth import Link

from ..config import fields
from ..config.load import RECIPE_FILE, load_recipe
from ..config.pinned import Sdist
from ..config.recipe import Commit, Repository, SourcePin, Submodule, Target
from ..engines.process import local_workplace
from ..errors import FatwheelError, FetchError, FormatError, UsageError
from ..events import Emit
from ..model import Unit
from ..pins.listings import Asker, Listings
from ..pins.published import announced
from ..shipped import DEFAULT_TOOLCHAINS, OWN_KERNELS
from ..storage import files
from ..storage.cache import cache_folder, users_stores, work_folder
from ..storage.documents import TomlError, read_toml
from ..text import clean
from ..toolchain.access import LISTED, origin_of
from ..toolchain.index import Index
from ..toolchain.pipconfig import RefusedError, read_pip_config
from ..wheels.archive import open_wheel
from ..wheels.metadata import top_modules
from ..wheels.name import Source, library_modules, parse_wheel_name
from ..worker.upstream import Project
from .capture import captured
from .compile import Effort
from .git import DamagedError, Objects, fetch_commit, opened, resolve_revision
from .lockrecipe import lock_recipe
from .plan import PlannedWheel, exact_fronts
from .requirements import packages_of
from .resolve import ToolchainRequest, resolve
from .sdist import MAX_DEPTH, MAX_MEMBERS
from .source import unpack

ARCHS = ("80", "86", "89", "90", "120")  # proposed: GPUs that most users have
GIT = "git"  # the word before a repository
_MOST_SUBMODULES = 50
_VARIABLE = re.compile(
    r"""(?:environ(?:\.get)?\s*[\[(]|getenv\s*\()\s*['"]([A-Za-z_][A-Za-z0-9_]{1,60})['"]"""
    r"""|['"]([A-Za-z_][A-Za-z0-9_]{1,60})['"]\s+(?:not\s+)?in\s+os\.environ"""
)
# What most projects call the variables that force a CUDA build, or one of one's own.
_FORCES = ((re.compile(r"(.*_)?FORCE_(ONLY_)?CUDA"), "1"), (re.compile(r".*FORCE_BUILD"), "TRUE"))
_OF_TORCH = re.compile(r"(?:^-l|/lib)(?:torch|c10)")  # in a command that links
_ARCH = re.compile(r"(?:sm|compute)_([0-9]{2,3}[af]?)")
_LARGEST = 1 << 20  # bytes of a setup.py, or .gitmodules


@dataclass(frozen=True)
class RecipeRequest:
    """What `invoke recipe` was asked for.

    words: NAME==VERSION, or `git` and URL@REV, or a folder. name: of the recipe, None for the
    project's. force: whether a recipe that is there is replaced. toolchain, python: what the build
    is captured with.
    """

    words: tuple[str, ...]
    name: str | None = None
    force: bool = False
    toolchain: str | None = None
    python: str | None = None


@dataclass
class Findings:
    """What a project shows of itself. notes: what its recipe's author has to look at."""

    project: str
    version: str
    source: list[str]
    variables: list[str] = field(default_factory=list)
    archs: list[str] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    runtime: list[str] = field(default_factory=list)
    units: tuple[Unit, ...] = ()
    pins: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class NewRecipe:
    """file: of the new recipe."""

    file: Path
    findings: Findings


def new_recipe(request: RecipeRequest, emit: Emit) -> NewRecipe:
    """Write kernels/NAME/recipe.toml.

    Raises UsageError for what cannot be a source, and where there is a recipe of that name;
    FetchError and others where the source cannot be had. What a build would stop at is a note.
    """
    if request.name:
        _check_free(request.name, force=request.force)
    source, project, version = _pinned(request.words, emit)
    found = Findings(project, version, _source_lines(source))
    with work_folder() as work:
        part = work / str(canonicalize_name(project))
        part.mkdir()
        _look_into(found, part, request, emit)
        (part / RECIPE_FILE).write_text(text_of(found), encoding="utf-8")
        load_recipe(part)  # whatever a project says of itself, its recipe can be read
    name = request.name or str(canonicalize_name(found.project))
    _check_free(name, force=request.force)
    file = OWN_KERNELS / name / RECIPE_FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(file) as stream:
            stream.write(text_of(found).encode())
    except OSError as error:
        raise files.disk_error(error, "write a recipe", file, "another folder") from error
    return NewRecipe(file, found)


def _check_free(name: str, *, force: bool) -> None:
    try:
        fields.adapter(fields.Name).validate_python(name)
    except ValidationError:
        raise UsageError(f"{name!r:.80} is not a valid name for a recipe", where="--name") from None
    file = OWN_KERNELS / name / RECIPE_FILE
    if file.exists() and not force:
        raise UsageError(
            "there is a recipe of that name",
            where=str(file),
            hint="--name NAME gives the new one another; --force replaces it",
        )


# -- pinning ---------------------------------------------------------------------------------------


def _pinned(words: Sequence[str], emit: Emit) -> tuple[SourcePin, str, str]:
    """The source, and project and version as far as words tell them."""
    match list(words):
        case ["git", place] if "@" in place:
            url, _, revision = place.rpartition("@")
            git = _repository(url, revision, emit)
            stem = PurePosixPath(url).name.removesuffix(".git")
            return SourcePin(sha256=git.sha256, git=git), stem, "0"
        case [place] if os.path.isdir(place):
            path = Path(place).resolve()
            return SourcePin(checkout=True, path=path), path.name, "0"
        case [pin] if match := re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([\w.!+-]+)", pin):
            sdist = _sdist(match[1], match[2])
            return SourcePin(sdist, "", sdist.sha256), sdist.name, sdist.version
    raise UsageError(
        f"{' '.join(words)!r:.120} names no source",
        hint="valid: NAME==VERSION, git URL@REVISION, or a folder that is there",
    )


def _sdist(name: str, version: str) -> Sdist:
    """The sdist that the user's indexes list. Raises FetchError where there is none."""
    try:
        wanted = Version(version)
    except InvalidVersion:
        raise UsageError(f"{version!r:.60} is not a version") from None
    index = Index(read_pip_config())
    said = []
    try:
        asker = Asker(index)
        for source in index.sources:
            try:
                links = asker.ask(source.url, partial(index.listed, source, name))
            except RefusedError as error:
                said.append(f"{source.shown}: {error}")
                continue
            for link in links:
                size = _fits(link, wanted) and Listings(index, asker).length(link, LISTED)
                if size and (hashes := announced(link)):
                    own = link.filename.removesuffix(f"-{version}.tar.gz")
                    project = own if canonicalize_name(own) == canonicalize_name(name) else name
                    return Sdist(project, version, link.filename, size, hashes[0], "source")
            said.append(f"{source.shown}: lists no .tar.gz of {version} with its sha256")
    except RefusedError as error:
        said.append(str(error))
    finally:
        index.close()
    raise FetchError(
        f"no sdist of {name} {version} can be pinned",
        details=said,
        hint="many projects are on a code host alone: invoke recipe git URL@REVISION",
    )


def _fits(link: Link, wanted: Version) -> bool:
    with suppress(ValueError):
        return link.filename.endswith(".gz") and parse_sdist_filename(link.filename)[1] == wanted
    return False


def _repository(url: str, revision: str, emit: Emit) -> Repository:
    """A commit with all its submodules. Raises FetchError, FormatError."""
    _check_url(url, "")
    top = Commit(url=url, commit=resolve_revision(url, revision), tree="")
    submodules: list[Submodule] = []
    tree = _read(top, "", submodules, emit)
    return Repository(url=url, commit=top.commit, tree=tree, submodules=tuple(submodules))


def _read(pin: Commit, place: str, found: list[Submodule], emit: Emit) -> str:
    """The tree of a commit; its submodules, and theirs, are added."""
    with opened(fetch_commit(pin, cache_folder(), emit)) as objects:
        try:
            tree = objects.tree_of(pin.commit)
            left = iter(range(MAX_MEMBERS))
            links = dict(_submodules(objects, tree, PurePosixPath(), left))
            urls = _urls(objects, tree) if links else {}
        except (DamagedError, OSError, ValueError) as error:
            raise FormatError(
                f"{pin.commit} is no commit, or its repository is damaged: {error}",
                where=clean(pin.url),
                hint="name the commit, or a tag or branch",
            ) from error
    for path, commit in sorted(links.items()):
        inside = str(PurePosixPath(place, path))
        url = _absolute(urls.get(path, ""), pin.url)
        _check_url(url, inside)
        _check_near(url, pin.url, inside)
        if len(found) >= _MOST_SUBMODULES:
            raise FormatError(f"the repository has more than {_MOST_SUBMODULES} submodules")
        inner = Commit(url=url, commit=commit, tree="")
        at = len(found)
        found.append(Submodule(path=inside, url=url, commit=commit, tree=""))
        its = _read(inner, inside, found, emit)
        found[at] = Submodule(path=inside, url=url, commit=commit, tree=its)
    return tree


def _submodules(
    objects: Objects, tree: str, place: PurePosixPath, left: Iterator[int]
) -> Iterator[tuple[str, str]]:
    """Paths and commits. left: an item for each entry that may still be read."""
    if len(place.parts) > MAX_DEPTH:
        raise FormatError(f"the repository is more than {MAX_DEPTH} folders deep")
    for entry in objects.entries(tree):
        if next(left, None) is None:
            raise FormatError(f"the repository holds more than {MAX_MEMBERS} files")
        if entry.mode == "160000":
            yield str(place / entry.name), entry.id
        elif entry.mode == "40000":
            yield from _submodules(objects, entry.id, place / entry.name, left)


def _urls(objects: Objects, tree: str) -> dict[str, str]:
    """URLs by path, of .gitmodules (gitmodules(5))."""
    ids = [entry.id for entry in objects.entries(tree) if entry.name == ".gitmodules"]
    data = objects.read(ids[0], "blob") if ids else b""
    text = data[:_LARGEST].decode("utf-8", "replace")
    found: dict[str, str] = {}
    for section in re.split(r"(?m)^[ \t]*\[", text):
        said = dict(re.findall(r"(?m)^[ \t]*(path|url)[ \t]*=[ \t]*(\S.*)$", section))
        if {"path", "url"} <= said.keys():
            found[said["path"].strip().strip('"')] = said["url"].strip().strip('"')
    return found


def _absolute(url: str, base: str) -> str:
    """A URL that may say where it is from its project's."""
    return urljoin(f"{base}/", url).rstrip("/") if url.startswith(("./", "../")) else url


def _check_url(url: str, submodule: str) -> None:
    """Raise FormatError where a repository is at a place that no recipe may name."""
    try:
        fields.adapter(fields.Url).validate_python(url)
    except ValidationError as error:
        why = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        which = f"the submodule {clean(submodule)[:100]} is at " if submodule else ""
        raise FormatError(
            f"{which}{clean(url)[:120] or 'no URL'}: {why}",
            hint="repositories are fetched over https, without a user or password; a checkout on "
            "this machine may come from anywhere: invoke recipe FOLDER",
        ) from None


def _check_near(url: str, outer: str, submodule: str) -> None:
    """Raise FormatError where a repository from elsewhere has something fetched from this machine
    or from a private address."""
    near, far = origin_of(url), origin_of(outer)
    if near.is_inside and not far.is_inside:
        raise FormatError(
            f"the submodule {clean(submodule)[:100]} is at the private address {near.host}, and "
            f"the repository at {far.host} is not",
            hint="a checkout on this machine may come from anywhere: invoke recipe FOLDER",
        )


# -- looking into it -------------------------------------------------------------------------------


def _look_into(found: Findings, part: Path, request: RecipeRequest, emit: Emit) -> None:
    """Fill in what unpacking, locking and capturing show. part: the recipe's folder until it is
    written."""
    file = part / RECIPE_FILE
    file.write_text(text_of(found), encoding="utf-8")
    asked = ToolchainRequest(DEFAULT_TOOLCHAINS["linux"], request.toolchain, pythons=request.python)
    [target, *_] = resolve(str(part), asked, None)
    with work_folder() as work:
        project = unpack(target.recipe, cache_folder(), work, emit)
        _read_project(project, found)
    file.write_text(text_of(found), encoding="utf-8")
    try:
        lock_recipe(str(part), [asked], emit, write=True)
        found.pins = _pins_in(file.read_text(encoding="utf-8"))
    except FatwheelError as error:
        found.notes.append(_in_short("what its build requires is not pinned", error))
        return
    [target, *_] = resolve(str(part), asked, None)
    try:
        _capture(target, found, emit)
    except FatwheelError as error:
        found.notes.append(_in_short("its build could not be captured", error))


def _in_short(what: str, error: FatwheelError) -> str:
    lines = [line.strip() for line in (error.what, *error.details[-3:])]
    return clean(f"{what}: {'; '.join(lines)}")[:600]


def _pins_in(text: str) -> str:
    place = text.find("\n[[build]]")
    return text[place:] if place >= 0 else ""


def _read_project(project: Project, found: Findings) -> None:
    """What pyproject.toml and setup.py say."""
    with suppress(TomlError, OSError):
        table = read_toml(project.root / "pyproject.toml")[1].get("project", {})
        if isinstance(table, dict):
            found.project = _valid(fields.Project, table.get("name"), found.project)
            found.version = _valid(fields.PublicVersion, table.get("version"), found.version)
    texts = [_text(project.root / name) for name in ("setup.py", "CMakeLists.txt")]
    names = [one or other for text in texts for one, other in _VARIABLE.findall(text)]
    found.variables = [name for name in dict.fromkeys(names) if _valid(fields.Variable, name, "")]
    found.archs = sorted({arch for text in texts for arch in _ARCH.findall(text)})


def _valid(kind: object, value: object, otherwise: str) -> str:
    """A value that a recipe may have."""
    try:
        return str(fields.adapter(kind).validate_python(value))  # type: ignore[arg-type]
    except ValidationError:
        return otherwise


def _text(file: Path) -> str:
    with suppress(OSError), file.open("rb") as stream:
        return stream.read(_LARGEST).decode("utf-8", "replace")
    return ""


def _capture(target: Target, found: Findings, emit: Emit) -> None:
    """What the build compiles, and what is in the wheel that it makes without compiling."""
    workplace = local_workplace(target, emit)
    limits = Effort().limits(workplace.capacity)
    planned = PlannedWheel(target, exact_fronts(target.archs))
    with captured(planned, workplace, limits, users_stores(), emit) as (_, capture):
        found.units = capture.units
        [wheel] = (capture.upstream.work / "capture-wheel").glob("*.whl")
        name = parse_wheel_name(wheel.name)
        found.project = _valid(fields.Project, name.project, found.project)
        version = name.version.partition("+")[0]
        found.version = _valid(fields.PublicVersion, version, found.version)
        with open_wheel(wheel) as inside:
            members = [member.name for member in inside.members]
            metadata = inside.read(f"{inside.dist_info}/METADATA")
        sources = list(_sources_of(capture.units, capture.upstream.project.top))
    found.imports = imports_of(members, sources, capture.links)
    there, _ = packages_of(target.toolchain, target.python, target.torch)
    said = BytesParser(policy=compat32).parsebytes(metadata).get_all("Requires-Dist", [])
    found.runtime = [one for one in map(_plain, said) if one and one not in there]


def imports_of(
    members: Sequence[str], sources: Iterable[Source], links: Iterable[Sequence[str]]
) -> list[str]:
    """The modules that a wheel's files offer, its own libraries as well: others can go on without
    those, and hide that they do not load. links: commands that link these; what is linked with
    torch's libraries finds them once torch is there.
    """
    libraries = library_modules(members, sources)
    others = top_modules([name for name in members if not name.endswith((".so", ".pyd"))])
    for_torch = any(_OF_TORCH.search(word) for words in links for word in words)
    found = [*(["torch"] if libraries and for_torch else []), *others, *libraries]
    return [one for one in found if _valid(fields.Module, one, "")]


def _sources_of(units: Iterable[Unit], top: Path) -> Iterator[Source]:
    for unit in units:
        data = files.read_plain(top / unit.source.removeprefix("@src@/"), _LARGEST) or b""
        yield Source(data.decode("utf-8", "replace"), unit.preprocessor)


def _plain(words: object) -> str:
    """The name of a requirement that always holds; else ''."""
    with suppress(InvalidRequirement):
        requirement = Requirement(str(words))
        if requirement.marker is None:
            return str(canonicalize_name(requirement.name))
    return ""


# -- the file --------------------------------------------------------------------------------------


def _source_lines(source: SourcePin) -> list[str]:
    if source.git:
        one = source.git
        lines = [f'git = "{one.url}"', f'commit = "{one.commit}"', f'tree = "{one.tree}"']
        for inner in one.submodules:
            lines += ["", "[[source.submodules]]", f'path = "{inner.path}"', f'url = "{inner.url}"']
            lines += [f'commit = "{inner.commit}"', f'tree = "{inner.tree}"']
        return lines
    if source.package:
        one_file = source.package
        return [
            f'sdist = "{one_file.filename}"',
            f"size = {one_file.size}",
            f'sha256 = "{one_file.sha256}"',
        ]
    return [f"checkout = '{source.path}'  # only this machine has it: its wheels are not rebuilt"]


def text_of(found: Findings) -> str:
    """The recipe."""
    imports = found.imports or [re.sub(r"\W", "_", found.project)]
    lines = [
        f'project = "{found.project}"',
        f'version = "{found.version}"',
        f"archs = [{', '.join(map(_quoted, ARCHS))}]",
        f"imports = [{', '.join(map(_quoted, imports))}]",
        "# Of one compiler call; first estimates, until a build has measured them.",
        'memory = "4GiB"',
        "seconds = 120",
        "",
        "[source]",
        *found.source,
        "",
        *_environment_lines(found.variables),
    ]
    if found.runtime:
        names = ", ".join(found.runtime)
        lines += [f"# Its modules import, besides torch: {names}. Pin them under [[runtime]]."]
    return "\n".join(lines).rstrip("\n") + "\n" + found.pins


def _environment_lines(variables: Sequence[str]) -> Iterator[str]:
    values = {name: value for name in variables for kind, value in _FORCES if kind.fullmatch(name)}
    others = [name for name in variables if name not in values]
    if values or others:
        yield "[environment]"
    yield from (f'{name} = "{value}"' for name, value in values.items())
    if others:
        yield f"# Read by its setup.py, too: {', '.join(others)}"


def _quoted(word: str) -> str:
    return f'"{word}"'


def questions(written: NewRecipe) -> Iterator[str]:
    """What the recipe's author has to look at."""
    found = written.findings
    yield from found.notes
    if found.version == "0":
        yield "its version is not known: only its build says it"
    if not found.imports:
        yield "what can be imported from its wheel is not known: `imports` is a guess"
    named = ", ".join(found.archs)
    yield "archs are a proposal" + (f"; its build files name {named}" if named else "")
    yield "memory and seconds are fatwheel's defaults, until a build has measured them"
    if found.runtime:
        yield f"[[runtime]] is to be pinned: {', '.join(found.runtime)}"
    if not (written.file.parent / "verify.py").exists():
        yield "there is no verify.py, which checks results on a GPU"
