"""What an index offers, and which of its wheels fits this machine.

An index is the page of one project in a simple index (PEP 503, PEP 691), any other page with links
to wheels, or a site of `fatwheel index`, whose wheels.json also tells CUDA, torch and GPUs. A page
is a stranger's: it is bounded, and does not lead this machine into its own network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from ..arch import JIT, NATIVE
from ..errors import FatwheelError, FetchError, FormatError, UsageError
from ..publish.offers import Served
from ..publish.listing import LIST, parse_list
from ..storage.documents import read_value
from ..toolchain.errands import PINNED
from ..toolchain.pipconfig import RefusedError, read_pip_config, redacted
from ..toolchain.web import Web
from ..verify.drivers import GPU, Need
from ..wheels.builtfor import local_cuda, local_torch
from ..wheels.name import WheelName, canonical_project, canonical_version, parse_wheel_name
from . import cures
from .causes import NOTE, WRONG, Cure, Finding
from .device import is_older
from .environment import Target
from .presence import takes
from .torch import Torch

_MOST_WHEELS = 20_000
_SHOWN = 8
_CLOSER = ("python", "torch", "gpu", "driver")  # in the order in which wheels are turned down
_RANKS = {NATIVE: 3, JIT: 2, "unknown": 1, "part": 0}


@dataclass(frozen=True)
class Offered:
    """A wheel of an index. cuda, torch: what it was built for, '' where that is not said. gpus: how
    GPUs run it, by capability; None where the index does not say it."""

    name: WheelName
    url: str
    requires_python: str
    sha256: str
    cuda: str
    torch: str
    gpus: dict[str, Served] | None = None

    @property
    def project(self) -> str:
        return canonical_project(self.name.project)

    @property
    def version(self) -> Version:
        return Version(canonical_version(self.name.version))


@dataclass(frozen=True)
class Judged:
    """A wheel, and why it does not fit: a cause and a word for it; '' where it fits."""

    offered: Offered
    cause: str
    why: str
    how: str = "unknown"


# -- what it offers --------------------------------------------------------------------------------


def read_index(url: str) -> tuple[Offered, ...]:
    """All wheels that an index offers, which must be at least one.

    UsageError for a URL that is none; FetchError where nothing comes of it; FormatError where what
    comes is no index.
    """
    _check_url(url)
    config = read_pip_config()
    web = Web(replace(config, indexes=(*config.indexes, url)))
    try:
        document = _get(web, url)
        found = _wheels_in(document, url)
        if not found:
            site = url if url.endswith("/") else f"{url}/"
            found = _site(web, urljoin(site, LIST))
    finally:
        web.close()
    if not found:
        raise FormatError(
            "no wheel is listed there", where=redacted(url),
            hint="name the page of one project (https://INDEX/simple/PROJECT/), or a site of "
            "fatwheel's",
        )  # fmt: skip
    return found


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"{url!r:.200} is not the URL of an index", hint="valid: https://INDEX/simple/PROJECT/"
        )


def _get(web: Web, url: str) -> bytes:
    try:
        return web.patiently(lambda: web.read(url, PINNED), threading.Event())
    except RefusedError as error:
        raise FetchError(f"the index cannot be read: {error}", where=redacted(url)) from error


def _site(web: Web, url: str) -> tuple[Offered, ...]:
    try:
        return _wheels_in(_get(web, url), url)
    except FetchError:
        return ()


def _wheels_in(document: bytes, url: str) -> tuple[Offered, ...]:
    """FormatError for JSON that is damaged; of HTML all links count that name wheels."""
    if document.lstrip()[:1] in (b"{", b"["):
        where = redacted(url)
        content = read_value(document, where)
        if isinstance(content, dict) and "files" in content:
            return tuple(_of_json(content["files"], url))
        return tuple(_of_site(document, url))
    parser = _Links()
    parser.feed(document.decode("utf-8", "replace"))
    parser.close()
    base = urljoin(url, parser.base) if parser.base else url
    links = parser.links[:_MOST_WHEELS]
    return tuple(_offered_all((_of_link(href, python, base) for href, python in links)))


class _Links(HTMLParser):
    """Links that are not yanked, with what they say of Python; and the page's base."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.links: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        href = said.get("href")
        if tag == "base" and href and not self.base:
            self.base = href
        elif tag == "a" and href and "data-yanked" not in said:
            self.links.append((href, said.get("data-requires-python") or ""))


def _offered_all(found: Iterator[Offered | None]) -> Iterator[Offered]:
    return (one for one in found if one is not None)


def _of_link(href: str, requires_python: str, base: str) -> Offered | None:
    try:
        url, _, fragment = urljoin(base, href.strip()).partition("#")
        filename = unquote(urlsplit(url).path.rpartition("/")[2])
    except ValueError:
        return None
    sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
    return _offered(filename, url, requires_python, sha256)


def _of_json(files: Any, base: str) -> Iterator[Offered]:
    for one in (files if isinstance(files, list) else [])[:_MOST_WHEELS]:
        if not isinstance(one, dict) or one.get("yanked"):
            continue
        filename, url = one.get("filename"), one.get("url")
        python, hashes = one.get("requires-python") or "", one.get("hashes")
        if not (isinstance(filename, str) and isinstance(url, str) and isinstance(python, str)):
            continue
        said = hashes.get("sha256") if isinstance(hashes, dict) else ""
        try:
            whole = urljoin(base, url)
        except ValueError:
            continue
        found = _offered(filename, whole, python, said if isinstance(said, str) else "")
        if found:
            yield found


def _offered(filename: str, url: str, requires_python: str, sha256: str) -> Offered | None:
    """None for what is no wheel, or cannot be put into a command."""
    if not filename.endswith(".whl") or not cures.is_url(url):
        return None
    try:
        name = parse_wheel_name(filename)
    except FatwheelError:
        return None
    local = name.version.partition("+")[2].lower().replace("_", ".")
    known = sha256 if len(sha256) == 64 and sha256.isalnum() else ""
    return Offered(name, url, requires_python, known, local_cuda(local), local_torch(local))


def _of_site(document: bytes, url: str) -> Iterator[Offered]:
    """wheels.json of a site."""
    for placed in parse_list(document, redacted(url)):
        offer = placed.offer
        found = _offered(
            offer.filename, urljoin(url, placed.url("")), offer.requires_python, offer.sha256
        )
        if found:
            yield replace(found, cuda=offer.cuda, torch=offer.torch, gpus=offer.gpus)


# -- which of them fits ----------------------------------------------------------------------------


def index_findings(
    target: Target, torch: Torch | None, offered: tuple[Offered, ...]
) -> Iterator[Finding]:
    """One for each project: the wheel that fits best, or why none does."""
    projects = dict.fromkeys(one.project for one in offered)
    judged = {
        project: [_judge(target, torch, one) for one in offered if one.project == project]
        for project in projects
    }
    any_fits = any(not one.cause for found in judged.values() for one in found)
    for project, found in judged.items():
        fit = [one for one in found if not one.cause]
        if fit:
            yield _fitting(target, max(fit, key=_preference(target)), len(found))
        else:
            yield _none_fits(target, torch, project, found, NOTE if any_fits else WRONG)


def _judge(target: Target, torch: Torch | None, one: Offered) -> Judged:
    if not takes(target, one.name.tags) or not _takes_python(target, one.requires_python):
        return Judged(one, "python", f"{one.name.python}-{one.name.abi}-{one.name.platform}")
    if torch and one.torch and torch.release and one.torch != torch.release:
        return Judged(one, "torch", f"torch {one.torch}")
    major = one.cuda.partition(".")[0]
    if torch and major and torch.cuda and major != torch.cuda.partition(".")[0]:
        return Judged(one, "torch", f"CUDA {one.cuda}")
    if one.gpus is None or not target.driver.gpus:
        return Judged(one, "", "")
    hows = []
    for gpu in target.driver.gpus:
        served = one.gpus.get(gpu.capability)
        if served is None:
            return Judged(one, "gpu", f"no code for {gpu.name} ({gpu.capability})")
        need = Need(served.driver, GPU, "") if served.driver else None
        if need and is_older(target, need):
            return Judged(one, "driver", f"driver {served.driver}")
        hows.append(served.how)
    return Judged(one, "", "", min(hows, key=lambda how: _RANKS.get(how, 0)))


def _takes_python(target: Target, requires_python: str) -> bool:
    try:
        version = ".".join(map(str, target.version))
        return SpecifierSet(requires_python).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True


def _preference(target: Target) -> Callable[[Judged], tuple[object, ...]]:
    places = {str(tag): place for place, tag in enumerate(target.tags)}

    def rank(one: Judged) -> tuple[object, ...]:
        offered = one.offered
        best = min(places.get(tag, len(places)) for tag in offered.name.tags)
        version = offered.version
        stable = not version.is_prerelease
        return stable, version.public and Version(version.public), _RANKS.get(one.how, 0), -best

    return rank


def _fitting(target: Target, best: Judged, count: int) -> Finding:
    offered = best.offered
    how = {NATIVE: ", with machine code for its GPU", JIT: ", with PTX for its GPU"}.get(
        best.how, ""
    )
    says = offered.torch or offered.cuda
    unknown = "" if says else "; its name does not say which torch it was built for"
    what = f"{offered.name.filename} fits this machine{how}{unknown} (of {count} wheels)"
    url = f"{offered.url}#sha256={offered.sha256}" if offered.sha256 else offered.url
    cure = Cure("install it", cures.install(target, url))
    return Finding("installed", NOTE, what, cure=cure)


def _none_fits(
    target: Target, torch: Torch | None, project: str, found: list[Judged], severity: str
) -> Finding:
    """By the cause that the most promising of them have."""
    cause = max({one.cause for one in found}, key=_CLOSER.index)
    whys = list(dict.fromkeys(one.why for one in found if one.cause == cause))
    what = f"none of the {len(found)} wheels of {project} fits: "
    if cause == "python":
        what += f"none is for {target.title}, tag {next(iter(target.tags))}"
        cure = Cure("no command is known: use a Python that it has wheels for, or build it")
    elif cause == "torch":
        what += f"for this Python they are for {', '.join(whys[:_SHOWN])}; here is "
        what += torch.title if torch else "no torch"
        cure = _torch_for(target, found)
    elif cause == "gpu":
        what += ", ".join(whys[:_SHOWN])
        archs = {gpu.capability.replace(".", "") for gpu in target.driver.gpus}
        arch = ",".join(sorted(archs))
        cure = Cure(f"no command is known: make one: fatwheel build --kernel RECIPE --arch {arch}")
    else:
        what += f"the driver is older than they need ({', '.join(whys[:_SHOWN])})"
        cure = Cure("update NVIDIA's driver, on the machine itself: nvidia.com/drivers")
    return Finding(cause, severity, what, details=tuple(whys), cure=cure)


def _torch_for(target: Target, found: list[Judged]) -> Cure:
    torches = {one.offered.torch for one in found if one.cause == "torch" and one.offered.torch}
    if not torches:
        return Cure("no command is known: install a torch for the same CUDA")
    newest = max(torches, key=Version)
    return Cure(
        f"install torch {newest}, for which there is one; then check again",
        cures.install(target, f"torch=={newest}.*"),
    )
