"""Variants of the wheels of an index, from which an installer takes the one for the machine's GPU:
`invoke index --variants`. Experimental: it follows drafts, as uv implements them.

Formats: PEP 825 (labels, variant.json, NAME-VERSION-variants.json), and PEP 850 with NVIDIA's
provider for what these say. That provider says of a machine
- the CUDA of its driver: `cuda_version_lower_bound`, of which every older one holds as well;
- its GPU: `sm_arch`. For 8.6 these are `86_real` down to `80_real`, and `80_virtual`: so
  `80_real` promises what runs on all of 8.x. Nothing stands for code with the suffix `a`.

A variant is a thin wheel with the version of the wheel that it was made from. It keeps all that
any GPU loads which takes it: there it does what the whole wheel does. Who takes it is known:
- one with `86_real` is for 8.6 to 8.9, or up to the next variant: the provider prefers that;
- one with `90_virtual` is for all of 9.x. It is made where there is no code for 9.x but PTX.
Where the first of these GPUs runs a kernel and a later one does not, there is no such variant. An
installer looks at the bound first: so all variants of one major number have the same, that of the
newest driver which their images need. GPUs without a variant are left the whole wheel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import Version

from .. import text
from ..arch import NONE, Arch, coverage, parse_capability
from ..edit import survey
from ..edit.survey import Surveyed, survey_wheel
from ..edit.thin import thin_surveyed
from ..errors import FormatError, StitchError, UsageError
from ..events import Emit, step
from ..fatbin.container import Entry
from ..fatbin.images import Selection, choose, is_integrated, is_readable
from ..storage import files
from ..storage.documents import json_bytes
from ..verify.contents import UNKNOWN
from ..verify.drivers import LINUX, WINDOWS, tables
from ..wheels.archive import MAX_PART
from ..wheels.name import VARIANT, escape_project, parse_any_name, parse_wheel_name, split_variant
from .offers import Offer, Placed, ReadWheel, Variant, read_offer

_NAMESPACE = "nvidia"
_MOST = 40  # of one wheel: there were never as many kinds of GPUs, and each is a file
_FRAME = {
    "$schema": "https://variants-schema.wheelnext.dev/peps/850/v0.2.0.json",
    "default-priorities": {"namespace": [_NAMESPACE]},
    "providers": {
        _NAMESPACE: {
            "requires": ["nvidia-variant-provider>=0.0.1"],
            "plugin-api": "nvidia_variant_provider.plugin:NvidiaVariantPlugin",
        }
    },
}


@dataclass(frozen=True)
class Added:
    """placed: the variants of the named wheels. made: those of them that were written to the
    site's files. notes: sentences for the user."""

    placed: Sequence[Placed] = ()
    made: Sequence[ReadWheel] = ()
    notes: Sequence[str] = ()


def document_of(one: Placed) -> str:
    """The name of the file in an index that tells of all variants of a version."""
    return f"{escape_project(one.offer.project)}-{one.offer.version}-variants.json"


def documents(offered: Iterable[Placed]) -> dict[str, bytes]:
    """Those files, for the versions that have variants."""
    found: dict[str, list[Variant]] = defaultdict(list)
    for one in offered:
        if one.variant:
            found[document_of(one)].append(one.variant)
    return {name: _document(variants) for name, variants in found.items()}


def _document(variants: Iterable[Variant]) -> bytes:
    """What installers read of variants."""
    told = {
        one.label: {
            _NAMESPACE: {"cuda_version_lower_bound": [one.cuda], "sm_arch": list(one.sm_arch)}
        }
        for one in variants
    }
    return json_bytes({**_FRAME, "variants": told})


def add_variants(
    named: Sequence[tuple[ReadWheel, Placed]],
    offered: Sequence[Placed],
    before: Sequence[Placed],
    folder: Path,
    emit: Emit,
) -> Added:
    """Make the variants of the wheels that were named, but for those that the site has.

    offered: all wheels that the site will have. before: those that it has. folder: its files.
    UsageError where variants of two wheels would have one name, and nothing is written then.
    """
    _check_spellings(offered)
    placed: list[Placed] = []
    made: list[ReadWheel] = []
    notes: list[str] = []
    for whole, place in named:
        known = [one for one in before if one.variant and one.variant.of == whole.offer.sha256]
        if known and all(_is_there(one, place, folder) for one in known):
            there = {"base": place.base, "beside": place.beside}
            placed += [one.model_copy(update=there) for one in known]
            continue
        with step(emit, "thin", whole.offer.filename):
            fresh, said = _made(whole, folder)
        notes += said
        for found, variant in fresh:
            made.append(found)
            placed.append(place.model_copy(update={"offer": found.offer, "variant": variant}))
    if made and placed[0].base:
        count = text.count(len(made), "new variant wheel")
        notes.append(f"upload {count} from {folder} to {placed[0].base} before the site")
    return Added(placed, made, notes)


def _check_spellings(offered: Iterable[Placed]) -> None:
    """Variants have names in the normal spelling, whatever that of their wheels."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in offered:
        if not one.variant:
            name = parse_wheel_name(one.offer.filename)
            found[name.renamed(name.project, name.version).filename].add(one.offer.filename)
    clashes = [sorted(names) for names in found.values() if len(names) > 1]
    if clashes:
        raise UsageError(
            "variants of several wheels would have the same names",
            where="--variants",
            details=[" and ".join(names) for names in sorted(clashes)],
            hint="these versions are the same in another spelling: offer one of the wheels",
        )


def _is_there(one: Placed, place: Placed, folder: Path) -> bool:
    """Whether a variant that the site has can be offered where its wheel is now."""
    if place.base and place.base == one.base:
        return True
    path = folder / one.offer.filename
    return path.is_file() and path.stat().st_size == one.offer.size


# -- making them -----------------------------------------------------------------------------------


def _made(whole: ReadWheel, folder: Path) -> tuple[list[tuple[ReadWheel, Variant]], list[str]]:
    """The variants of a wheel, written to a folder. Also notes: why there are none, or none for
    some GPUs."""
    made: list[tuple[ReadWheel, Variant]] = []
    try:
        wheel = survey_wheel(whole.path)
        plans, notes = _planned(whole.offer, wheel)
        fresh = [
            (plan, Variant(of=whole.offer.sha256, cuda=plan.cuda, sm_arch=plan.values))
            for plan in plans
        ]
        _check_names(whole, wheel, [variant.label for _, variant in fresh])
        for plan, variant in fresh:
            made.append((_write(whole, wheel, plan.gpus, variant, folder), variant))
    except (FormatError, StitchError) as error:
        for found, _ in made:
            files.remove(found.path)
        made, notes = [], [f"no variants: {error.what}"]
    return made, [f"{whole.offer.filename}: {note}" for note in notes]


def _check_names(whole: ReadWheel, wheel: Surveyed, labels: Sequence[str]) -> None:
    """FormatError where variants are too many, or one cannot have its name, or files beside it."""
    if len(labels) > _MOST:
        raise FormatError(f"there would be {len(labels)}, and {_MOST} are the most")
    plain = wheel.name.renamed(wheel.name.project, wheel.version)
    longest = MAX_PART - max(map(len, whole.texts))
    for label in labels:
        filename = replace(plain, variant=label).filename
        if split_variant(filename)[1] != label:
            raise FormatError(f"with the label {label}, its name would not be that of a variant")
        if len(filename) > longest:
            raise FormatError(f"with the label {label}, its name would be too long for a file")


def _write(
    whole: ReadWheel, wheel: Surveyed, gpus: tuple[Arch, ...], variant: Variant, folder: Path
) -> ReadWheel:
    new = survey.VariantLabel(variant.label, _document([variant]))
    made = thin_surveyed(wheel, Selection(gpus, partial=True), folder, variant=new)
    found = read_offer(made.path, parse_any_name)
    # It is in the channels of the whole wheel, whatever its own code would say.
    same = {"cuda": whole.offer.cuda, "torch": whole.offer.torch}
    return found.model_copy(update={"offer": found.offer.model_copy(update=same)})


# -- which variants --------------------------------------------------------------------------------

# Kind and architecture of a container's images, and one of the containers that hold such ones.
_Containers = Mapping[frozenset[tuple[str, Arch]], Sequence[Entry]]


@dataclass(frozen=True)
class _Band:
    """The GPUs that take a value of the provider's, known ones or not, from the first on."""

    value: str
    gpus: tuple[Arch, ...]


@dataclass(frozen=True)
class _Plan:
    """A variant to make: what it says, and the GPUs that take it."""

    cuda: str
    values: tuple[str, ...]
    gpus: tuple[Arch, ...]


def _planned(offer: Offer, wheel: Surveyed) -> tuple[list[_Plan], list[str]]:
    """The variants of a wheel, and what to know of those that it does not have."""
    containers: dict[frozenset[tuple[str, Arch]], Sequence[Entry]] = {}
    for file in wheel.files.values():
        for entries in file.containers:
            shape = frozenset((one.kind, one.arch) for one in entries if is_readable(one))
            containers.setdefault(shape, entries)
    containers.pop(frozenset(), None)
    if obstacle := _obstacle(wheel, containers):
        return [], [f"no variants: {obstacle}"]
    served = {parse_capability(one) for one, how in offer.gpus.items() if how.how != UNKNOWN}
    bands = [
        band
        for major in sorted({gpu.major for gpu in served})
        for band in _bands(major, containers)
    ]
    plans = list(_with_bounds(_joined(bands, containers), offer))
    if len(plans) == 1 and _keeps_all(plans[0].gpus, containers):
        return [], ["no variants: its GPUs all load the same"]
    limited = served - {gpu for band in bands for gpu in band.gpus}
    unknown = served - limited - {gpu for plan in plans for gpu in plan.gpus}
    return plans, [
        f"GPUs of compute capability {', '.join(gpu.capability for gpu in sorted(gpus))} take the "
        f"whole wheel: {why}"
        for gpus, why in (
            (limited, "no variant can say exactly which GPUs run the code that they load"),
            (unknown, "which driver the code needs that they load is not known"),
        )
        if gpus
    ]


def _obstacle(wheel: Surveyed, containers: _Containers) -> str:
    """Why nobody can tell which of a wheel's device code is for which GPU; else ''."""
    if f"{wheel.dist_info}/{VARIANT}" in wheel.others.values():
        return f"it has a {VARIANT} already"
    if wheel.left or any(file.binary.format == "fatbin" for file in wheel.files.values()):
        return "libraries load device code themselves, and nothing tells which GPU loads what"
    return "" if containers else "it has no device code"


def _bands(major: int, containers: _Containers) -> list[_Band]:
    """The values that GPUs of a major number take: for each architecture with machine code, or,
    where there is none, for PTX."""
    machine_code = {arch for shape in containers for kind, arch in shape if kind == "elf"}
    minors = {arch.minor for arch in machine_code if arch.major == major and arch.suffix != "a"}
    found: list[_Band] = []
    end = 10
    for minor in sorted(minors, reverse=True):
        gpus = tuple(Arch(major * 10 + one) for one in range(minor, end))
        if _is_like_the_first(gpus, containers):
            found.append(_Band(f"{gpus[0]}_real", gpus))
            end = minor
    every = tuple(Arch(major * 10 + one) for one in range(10))
    if not found and _is_like_the_first(every, containers):
        found.append(_Band(f"{every[0]}_virtual", every))
    return found


def _is_like_the_first(gpus: Sequence[Arch], containers: _Containers) -> bool:
    """Whether all of these GPUs run what the first does, and that is anything."""
    runs = [{shape for shape in containers if _serves(shape, gpu)} for gpu in gpus]
    return bool(runs[0]) and all(runs[0] <= others for others in runs)


def _serves(shape: frozenset[tuple[str, Arch]], gpu: Arch) -> bool:
    cubins, ptx = ([arch for kind, arch in shape if kind == wanted] for wanted in ("elf", "ptx"))
    return coverage(cubins, ptx, gpu) != NONE


def _joined(bands: Sequence[_Band], containers: _Containers) -> list[list[_Band]]:
    """Those together whose GPUs load the same images: PTX serves several major numbers."""
    found: dict[object, list[_Band]] = defaultdict(list)
    for band in bands:
        kept = (choose(Selection(band.gpus), entries) for entries in containers.values())
        found[tuple(tuple((one.kind, one.arch) for one in images) for images in kept)].append(band)
    return list(found.values())


def _keeps_all(gpus: tuple[Arch, ...], containers: _Containers) -> bool:
    selection = Selection(gpus)
    return all(len(choose(selection, each)) == len(each) for each in containers.values())


def _with_bounds(groups: Sequence[Sequence[_Band]], offer: Offer) -> Iterator[_Plan]:
    """A variant for each group whose driver is known. One bound is for all of the same major
    numbers: an installer would take an older GPU's variant for its higher bound."""
    together: dict[frozenset[int], list[Sequence[_Band]]] = defaultdict(list)
    for group in groups:
        together[frozenset(gpu.major for band in group for gpu in band.gpus)].append(group)
    for same in together.values():
        cuda = _bound({gpu for group in same for band in group for gpu in band.gpus}, offer)
        if cuda:
            for group in same:
                values = tuple(band.value for band in group)
                yield _Plan(cuda, values, tuple(gpu for band in group for gpu in band.gpus))


def _bound(gpus: set[Arch], offer: Offer) -> str:
    """The oldest CUDA whose drivers run all that these GPUs load; '' where that is not known.

    What a GPU needs for itself counts only where that is more than the code needs: its driver has
    that. Jetsons have drivers of their own.
    """
    system = WINDOWS if any("-win_" in tag for tag in offer.tags) else LINUX
    needed: list[str] = []
    own: list[str] = []
    for gpu in sorted(gpus):
        served = offer.gpus.get(gpu.capability)
        if served is None or is_integrated(gpu):
            continue
        if not served.driver:
            return ""
        itself = tables().for_gpu(gpu, system)
        (own if itself and itself.driver == served.driver else needed).append(served.driver)
    drivers = [max(needed, key=Version)] if needed else [min(own, key=Version)] if own else []
    found = [cuda for one in drivers if (cuda := tables().cuda_with(one, system))]
    return ".".join(map(str, found[0])) if found else ""
