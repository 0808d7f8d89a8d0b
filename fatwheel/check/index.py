"""What an index offers, and which of its wheels fits this machine.

An index is the page of one project in a simple index (PEP 503, PEP 691), any other page with links
to wheels, or a site of `fatwheel index`, whose wheels.json also tells CUDA, torch and GPUs. A page
is a stranger's: it is bounded, and does not lead this machine into its own network.
"""

from __future__ import annotations

import html
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version
from unearth import Link

from ..arch import JIT, NATIVE
from ..errors import FatwheelError, FetchError, FormatError, UsageError
from ..pins.listings import Asker, RemoteWheels
from ..publish.offers import LIST, ServedGpu, parse_list
from ..storage.documents import read_value
from ..toolchain.access import PINNED
from ..toolchain.pipconfig import RefusedError, read_pip_config, redacted
from ..toolchain.web import Web
from ..verify.drivers import GPU, Need
from ..wheels.metadata import local_cuda, local_torch, named, requirements_of
from ..wheels.name import WheelName, canonical_project, canonical_version, parse_wheel_name
from . import cures
from .cures import NOTE, WRONG, Cure, Symptom
from .device import is_older
from .environment import CheckedPython, Torch
from .importing import takes

_MOST_LINKS = 20_000  # the largest listings that there are have as many
_MOST_ASKED = 20  # wheels whose METADATA is read
_ANCHOR, _BASE = (
    re.compile(rf"<{tag}\s([^<>]{{1,8000}})>", re.IGNORECASE) for tag in ("a", "base")
)
_ATTRIBUTE = re.compile(
    r"""([a-z-]{1,40})(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?""", re.IGNORECASE
)
_BESIDE = {"data-core-metadata", "data-dist-info-metadata"}
_SHOWN = 8
_CLOSER = ("python", "torch", "gpu", "driver")  # in the order in which wheels are turned down
_RANKS = {NATIVE: 3, JIT: 2, "unknown": 1, "part": 0}


@dataclass(frozen=True)
class Offered:
    """A wheel of an index. cuda, torch: what it was built for, '' where that is not said. gpus: how
    GPUs run it, by capability; None where the index does not say it. beside: whether the index has
    its METADATA beside it (PEP 658)."""

    name: WheelName
    url: str
    requires_python: str
    sha256: str
    cuda: str
    torch: str
    beside: bool = False
    gpus: dict[str, ServedGpu] | None = None

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


def index_findings(target: CheckedPython, torch: Torch | None, url: str) -> tuple[Symptom, ...]:
    """Of each project that an index offers: the wheel that fits best, or why none does.

    UsageError for a URL that is none; FetchError where nothing comes of it; FormatError where what
    comes is no index.
    """
    _check_url(url)
    config = read_pip_config()
    with closing(Web(replace(config, indexes=(*config.indexes, url)))) as web:
        offered = _read_index(web, url)
        requires = _Requirements(web, target.python)
        return tuple(findings_of(target, torch, offered, requires))


def _read_index(web: Web, url: str) -> tuple[Offered, ...]:
    found = _wheels_in(_get(web, url), url)
    if not found:
        site = url if url.endswith("/") else f"{url}/"
        found = _site(web, urljoin(site, LIST))
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
    return tuple(_of_html(document.decode("utf-8", "replace"), url))


def _of_html(page: str, url: str) -> Iterator[Offered]:
    """The links of a page that are not yanked. A parser of all HTML takes hours for some pages."""
    base = next((_attributes(found[1]).get("href", "") for found in _BASE.finditer(page)), "")
    url = _joined(url, base) if base else url
    for tag in itertools.islice(_ANCHOR.finditer(page), _MOST_LINKS):
        said = _attributes(tag[1])
        if said.get("href") and "data-yanked" not in said:
            beside = bool(_BESIDE & said.keys())
            python = said.get("data-requires-python", "")
            found = _of_link(said["href"], python, beside, url)
            if found:
                yield found


def _attributes(text: str) -> dict[str, str]:
    found = (match.groups("") for match in _ATTRIBUTE.finditer(text))
    return {name.lower(): html.unescape(one or other or bare) for name, one, other, bare in found}


def _of_link(href: str, requires_python: str, beside: bool, base: str) -> Offered | None:
    url, _, fragment = _joined(base, href.strip()).partition("#")
    filename = unquote(url.partition("?")[0].rpartition("/")[2])
    sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
    return _offered(filename, url, requires_python, sha256, beside)


def _joined(base: str, url: str) -> str:
    """'' where that is no URL."""
    try:
        return urljoin(base, url)
    except ValueError:
        return ""


def _of_json(files: Any, base: str) -> Iterator[Offered]:
    for one in (files if isinstance(files, list) else [])[:_MOST_LINKS]:
        if not isinstance(one, dict) or one.get("yanked"):
            continue
        filename, url = one.get("filename"), one.get("url")
        python, hashes = one.get("requires-python") or "", one.get("hashes")
        if not (isinstance(filename, str) and isinstance(url, str) and isinstance(python, str)):
            continue
        said = hashes.get("sha256") if isinstance(hashes, dict) else ""
        beside = bool(one.get("core-metadata") or one.get("dist-info-metadata"))
        found = _offered(
            filename, _joined(base, url), python, said if isinstance(said, str) else "", beside
        )
        if found:
            yield found


def _offered(
    filename: str, url: str, requires_python: str, sha256: str, beside: bool
) -> Offered | None:
    """None for what is no wheel, or cannot be put into a command."""
    if not filename.endswith(".whl") or not cures.is_url(url):
        return None
    try:
        name = parse_wheel_name(filename)
    except FatwheelError:
        return None
    local = name.version.partition("+")[2].lower().replace("_", ".")
    known = sha256 if len(sha256) == 64 and sha256.isalnum() else ""
    cuda, torch = local_cuda(local), local_torch(local)
    return Offered(name, url, requires_python, known, cuda, torch, beside)


def _of_site(document: bytes, url: str) -> Iterator[Offered]:
    """wheels.json of a site."""
    for placed in parse_list(document, redacted(url)):
        offer = placed.offer
        found = _offered(
            offer.filename,
            _joined(url, placed.url("")),
            offer.requires_python,
            offer.sha256,
            placed.beside,
        )
        if found:
            yield replace(found, cuda=offer.cuda, torch=offer.torch, gpus=offer.gpus)


# -- which of them fits ----------------------------------------------------------------------------


Requires = Callable[[Offered], tuple[Requirement, ...]]


class _Requirements:
    """What METADATA of single wheels wants of torch; nothing where it cannot be read."""

    def __init__(self, web: Web, python: str) -> None:
        self._remote = RemoteWheels(web, Asker(web))
        self._python = python

    def __call__(self, one: Offered) -> tuple[Requirement, ...]:
        link = Link(one.url, dist_info_metadata=True if one.beside else None)
        try:
            metadata = self._remote.metadata(link, PINNED)
            return named(requirements_of(metadata, self._python), "torch")
        except (RefusedError, FormatError):
            return ()


def findings_of(
    target: CheckedPython, torch: Torch | None, offered: tuple[Offered, ...], requires: Requires
) -> Iterator[Symptom]:
    """One for each project. requires: what a wheel's METADATA wants of torch."""
    projects = dict.fromkeys(one.project for one in offered)
    judged = {
        project: [_judge(target, torch, one) for one in offered if one.project == project]
        for project in projects
    }
    best = {project: _best(target, torch, found, requires) for project, found in judged.items()}
    for project, found in judged.items():
        fits = best[project]
        if fits:
            yield _fitting(target, fits, len(found))
        else:
            yield _none_fits(target, torch, project, found, NOTE if any(best.values()) else WRONG)


def _best(
    target: CheckedPython, torch: Torch | None, found: list[Judged], requires: Requires
) -> Judged | None:
    """The wheel to install. Where its name does not say which torch it is for, METADATA may; what
    that turns down is judged so in `found`."""
    fit = sorted((one for one in found if not one.cause), key=_preference(target), reverse=True)
    for asked, one in enumerate(fit):
        if torch is None or one.offered.torch:
            return one
        if asked == _MOST_ASKED:
            return None
        wanted = requires(one.offered)
        if all(map(torch.meets, wanted)):
            return one
        found[found.index(one)] = Judged(one.offered, "torch", ", ".join(map(str, wanted)))
    return None


def _judge(target: CheckedPython, torch: Torch | None, one: Offered) -> Judged:
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


def _takes_python(target: CheckedPython, requires_python: str) -> bool:
    try:
        version = ".".join(map(str, target.version))
        return SpecifierSet(requires_python).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True


def _preference(target: CheckedPython) -> Callable[[Judged], tuple[object, ...]]:
    places = {str(tag): place for place, tag in enumerate(target.tags)}

    def rank(one: Judged) -> tuple[object, ...]:
        offered = one.offered
        best = min(places.get(tag, len(places)) for tag in offered.name.tags)
        version = offered.version
        stable = not version.is_prerelease
        return stable, version.public and Version(version.public), _RANKS.get(one.how, 0), -best

    return rank


def _fitting(target: CheckedPython, best: Judged, count: int) -> Symptom:
    offered = best.offered
    how = {NATIVE: ", with machine code for its GPU", JIT: ", with PTX for its GPU"}.get(
        best.how, ""
    )
    what = f"{offered.name.filename} fits this machine{how} (of {count} wheels)"
    url = f"{offered.url}#sha256={offered.sha256}" if offered.sha256 else offered.url
    cure = Cure("install it", cures.install(target, url))
    return Symptom("installed", NOTE, what, cure=cure)


def _none_fits(
    target: CheckedPython, torch: Torch | None, project: str, found: list[Judged], severity: str
) -> Symptom:
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
    return Symptom(cause, severity, what, details=tuple(whys), cure=cure)


def _torch_for(target: CheckedPython, found: list[Judged]) -> Cure:
    torches = {one.offered.torch for one in found if one.cause == "torch" and one.offered.torch}
    if not torches:
        return Cure("no command is known: install a torch for the same CUDA")
    newest = max(torches, key=Version)
    return Cure(
        f"install torch {newest}, for which there is one; then check again",
        cures.install(target, f"torch=={newest}.*"),
    )
