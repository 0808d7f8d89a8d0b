"""Variants of wheels: for which GPUs there are some, what they keep, when they are written, and bad
input. That uv takes them is tried in tests/integration/test_variants.py."""

from __future__ import annotations

import json
import struct
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from fatwheel.errors import FormatError, UsageError
from fatwheel.events import silent
from fatwheel.provenance.sbom import sbom_bytes
from fatwheel.provenance.statement import predicate_of, statement_bytes
from fatwheel.publish.offers import LIST
from fatwheel.publish.site import Request, Written, write_site
from fatwheel.verify.report import verify_wheel

from ...helpers import manyarchs, statedwheels
from ...helpers.cudawheels import NONE, fatbin
from ...helpers.deviceimages import container as made_up
from ...helpers.deviceimages import read_wheel, sm
from ...helpers.elflibraries import shown_by_library
from ...helpers.manyarchs import MODULE, POOLS, container, containers_in, loaded, needed, runs
from ...helpers.tinywheels import Draft
from .test_site import HOSTILE, Links, files_of

TAG = "py3-none-linux_x86_64"
GPUS = [f"{major}.{minor}" for major in (7, 8, 9, 10, 11, 12) for minor in range(10)]
MANY = "sm_80 sm_90 compute_90"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def drafted(
    tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Draft]:
    """Makes a wheel with these two containers, or twice the one."""
    folder = tmp_path_factory.mktemp("linked")

    def make(*names: str, version: str = "1.0", packed: str = "lz4") -> Draft:
        contents = tuple(container(one.split(), packed) for one in names or [MANY])
        return manyarchs.draft(tool, folder, contents[0], contents[-1], version=version)

    return make


def made(wheels: Sequence[Path], out: Path, **request: Any) -> Written:
    return write_site(wheels, out, Request(variants=True, **request), silent)


def variants_in(out: Path, version: str = "1.0") -> dict[str, tuple[str, list[str]]]:
    """By label: the bound, and the GPUs; of the file that installers read."""
    path = out / f"files/demo-{version}-variants.json"
    told = json.loads(path.read_bytes())["variants"] if path.exists() else {}
    found = {}
    for label, properties in told.items():
        [(namespace, features)] = properties.items()
        assert namespace == "nvidia"
        assert sorted(features) == ["cuda_version_lower_bound", "sm_arch"]
        [bound] = features["cuda_version_lower_bound"]
        found[label] = bound, features["sm_arch"]
    return found


def taken(variants: dict[str, tuple[str, list[str]]], gpu: str, cuda: tuple[int, int]) -> str:
    """Which one an installer takes, '' for none: as NVIDIA's provider lists what a machine has,
    best first (nvidia_variant_provider.plugin), and PEP 825 orders variants by that."""
    major, minor = map(int, gpu.split("."))
    archs = [f"{major}{one}_real" for one in range(minor, -1, -1)] + [f"{major}0_virtual"]
    fitting = []
    for label, (bound, values) in variants.items():
        least = tuple(map(int, bound.split(".")))
        if least <= cuda and set(values) & set(archs):
            best = min(archs.index(value) for value in values if value in archs)
            fitting.append(([-part for part in least], best, label))
    return min(fitting)[2] if fitting else ""


# By NVIDIA's list of GPUs and their compute capabilities.
KNOWN = (
    "5.0", "5.2", "5.3", "6.0", "6.1", "6.2", "7.0", "7.2", "7.5", "8.0", "8.6", "8.7", "8.8",
    "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1",
)  # fmt: skip
CONTAINERS = st.sets(st.sampled_from(sorted(POOLS["lz4"])), min_size=1, max_size=6).map(
    lambda names: " ".join(sorted(names))
)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(["compute_75", "compute_75 compute_80 compute_90 sm_90a"], "lz4", (12, 0))
@given(
    st.lists(CONTAINERS, min_size=2, max_size=2),
    st.sampled_from(["lz4", "zstd"]),
    st.sampled_from([(11, 8), (12, 0), (12, 3), (12, 4), (12, 8), (12, 9), (13, 1)]),
)
def test_on_every_gpu_a_variant_does_what_the_whole_wheel_does(
    tool: Callable[[str], str],
    drafted: Callable[..., Draft],
    contents: list[str],
    packed: str,
    cuda: tuple[int, int],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made([drafted(*contents, packed=packed).write(folder)], folder / "site")
        variants = variants_in(folder / "site")
        for gpu in GPUS:
            label = taken(variants, gpu, cuda)
            if not label:
                continue
            [path] = (folder / "site/files").glob(f"*-{label}.whl")
            kept = containers_in(shown_by_library(folder, read_wheel(path)[MODULE]))
            event(f"{gpu.partition('.')[0]}.x takes {label.partition('_')[2][:3]}")
            whole = [names.split() for names in contents]
            for mine, every in zip(kept, whole, strict=True):
                assert loaded(mine, gpu) == loaded(every, gpu)
            best = set().union(*(loaded(every, gpu) for every in whole))
            assert best, f"nothing runs on {gpu}, which takes {label}"
            # A GPU that there is not yet will have a driver newer than all that is packed here.
            assert cuda >= needed(best, packed) or gpu not in KNOWN
            for every in whole:
                # With its code for exactly one architecture, others would be left without.
                exact = all(image.endswith("a") for image in every if runs(image, gpu))
                assert not (exact and loaded(every, gpu)), f"{gpu} takes {label}"


def test_labels_say_what_variants_are_for(drafted: Callable[..., Draft], tmp_path: Path) -> None:
    """Machine code of CUDA 12, and PTX of CUDA 12.4; the first driver for 10.0 is that of 12.7."""
    made([drafted().write(tmp_path)], tmp_path / "site")
    assert variants_in(tmp_path / "site") == {
        "cu120_sm80": ("12.0", ["80_real"]),
        "cu120_sm90": ("12.0", ["90_real"]),
        "cu127_ptx100_ptx120": ("12.7", ["100_virtual", "120_virtual"]),
    }


def test_a_higher_bound_does_not_get_an_older_gpu_s_variant_taken(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    """Installers go by the bound first; only the image for 8.0 needs that of zstd."""
    mixed = fatbin([POOLS["zstd"]["sm_80"], POOLS["lz4"]["sm_89"]])
    draft = manyarchs.draft(tool, tmp_path / "linked", mixed, mixed)
    made([draft.write(tmp_path)], tmp_path / "site")
    variants = variants_in(tmp_path / "site")
    assert sorted(variants) == ["cu124_sm80", "cu124_sm89"]
    assert taken(variants, "8.9", (12, 8)) == "cu124_sm89"
    assert taken(variants, "8.6", (12, 8)) == "cu124_sm80"
    assert taken(variants, "8.9", (12, 3)) == ""


@pytest.mark.parametrize("channel", ["simple", "cu129"])
def test_pages_link_to_variants_and_to_what_tells_of_them(
    drafted: Callable[..., Draft], tmp_path: Path, channel: str
) -> None:
    """That without a hash, for it changes: an installer would refuse it with an older page."""
    version = "1.0+cu129"
    hostile = f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\nSummary: {HOSTILE}\n"
    wheel = replace(drafted(version=version), metadata=hostile).write(tmp_path)
    made([wheel], tmp_path / "site")
    page = tmp_path / "site" / channel / "demo/index.html"
    links = {Path(link["href"] or "").name: link for link in Links(page).found}
    told = links.pop("demo-1.0%2Bcu129-variants.json")
    assert told == {"href": "../../files/demo-1.0%2Bcu129-variants.json"}
    labels = variants_in(tmp_path / "site", version)
    names = {f"demo-1.0%2Bcu129-{TAG}{label}.whl" for label in ["", *(f"-{x}" for x in labels)]}
    assert {name.partition("#")[0] for name in links} == names
    listed = json.loads(page.with_suffix(".json").read_bytes())
    assert listed["versions"] == [version]
    [one] = [file for file in listed["files"] if file["filename"].endswith(".json")]
    data = (tmp_path / "site/files" / one["filename"]).read_bytes()
    assert (one["hashes"], one["size"]) == ({}, len(data))
    rows = (tmp_path / "site/index.html").read_text()
    assert not any(label in rows for label in labels), "the finder offers single files"


def test_the_same_wheels_make_the_same_bytes(drafted: Callable[..., Draft], tmp_path: Path) -> None:
    wheel = drafted().write(tmp_path)
    for name in ("one", "other"):
        copy = make(tmp_path / name) / wheel.name
        copy.write_bytes(wheel.read_bytes())
        made([copy], tmp_path / name / "site")
    assert files_of(tmp_path / "one/site") == files_of(tmp_path / "other/site")


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_variants_that_are_there_are_not_made_again(
    drafted: Callable[..., Draft], tmp_path: Path
) -> None:
    wheel = drafted().write(tmp_path)
    first = made([wheel], tmp_path / "site")
    before = {path: path.stat().st_ino for path in (tmp_path / "site/files").iterdir()}
    again = made([wheel], tmp_path / "site")
    assert (again.wheels, again.written, again.removed) == (first.wheels, (), ())
    assert before == {path: path.stat().st_ino for path in (tmp_path / "site/files").iterdir()}
    lost = next(path for path in before if "sm90" in path.name and path.suffix == ".whl")
    content = lost.read_bytes()
    lost.unlink()
    assert f"files/{lost.name}" in made([wheel], tmp_path / "site").written
    assert lost.read_bytes() == content


def test_variants_stay_until_only_other_wheels_are_named(
    drafted: Callable[..., Draft], tmp_path: Path
) -> None:
    wheel, other = drafted().write(tmp_path), drafted(version="2.0").write(tmp_path)
    made([wheel], tmp_path / "site")
    labels = variants_in(tmp_path / "site")
    write_site([wheel, other], tmp_path / "site", Request(), silent)
    assert variants_in(tmp_path / "site") == labels
    assert not variants_in(tmp_path / "site", "2.0")
    made([other], tmp_path / "site")
    assert variants_in(tmp_path / "site") == variants_in(tmp_path / "site", "2.0") == labels
    write_site([wheel], tmp_path / "site", Request(only=True), silent)
    whole = {"demo-1.0-py3-none-linux_x86_64.whl", "demo-1.0-py3-none-linux_x86_64.whl.metadata"}
    assert {path.name for path in (tmp_path / "site/files").iterdir()} == whole


def test_wheels_that_are_elsewhere_have_variants_there(
    drafted: Callable[..., Draft], tmp_path: Path
) -> None:
    wheel, base = drafted().write(tmp_path), "https://example.org/v1/"
    first = made([wheel], tmp_path / "site", base_url=base)
    here = sorted((tmp_path / "site/files").glob("*.whl"))
    assert len(here) == 3, "the variants, to be uploaded"
    [note] = first.notes
    assert "3 new variant wheels" in note
    assert base in note
    links = [link["href"] or "" for link in Links(tmp_path / "site/simple/demo/index.html").found]
    assert sum(href.startswith(base) for href in links) == 4
    assert "../../files/demo-1.0-variants.json" in links
    for path in here:
        path.unlink()
    assert made([wheel], tmp_path / "site", base_url=base).written == ()


# -- what has no variants --------------------------------------------------------------------------

CUBIN = (Path(__file__).parents[2] / "data/device/cuda13.0-sm_80.cubin").read_bytes()


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"demo/a.py": b""}, "it has no device code"),
        ({"demo/a.fatbin": container(MANY.split())}, "load device code themselves"),
        ({"demo/a.cubin": CUBIN}, "load device code themselves"),
    ],
)
def test_a_wheel_without_variants_says_why(
    tmp_path: Path, files: dict[str, bytes], why: str
) -> None:
    check_without(Draft("demo", "1.0", TAG, files), tmp_path, why)


def test_a_wheel_with_one_image_or_a_variant_s_file_has_no_variants(
    drafted: Callable[..., Draft], tmp_path: Path
) -> None:
    check_without(drafted("sm_80"), make(tmp_path / "one"), "its GPUs all load the same")
    already = drafted()
    already.files["demo-1.0.dist-info/variant.json"] = b"{}"
    check_without(already, make(tmp_path / "already"), "it has a variant.json already")
    self_loading = drafted()
    self_loading.files["demo/a.cubin"] = CUBIN
    check_without(self_loading, make(tmp_path / "also"), "load device code themselves")


def test_a_wheel_for_more_kinds_of_gpus_than_there_are_has_no_variants(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    """Each would be a file, and a stranger's wheel of 9 KB can name 200 architectures."""
    image = bytearray(POOLS["lz4"]["sm_80"])
    every = []
    for number in range(10, 200):
        struct.pack_into("<I", image, 0x1C, number)
        every.append(bytes(image))
    draft = manyarchs.draft(tool, tmp_path / "linked", fatbin(every), fatbin(every))
    check_without(replace(draft, tag=TAG), tmp_path, "and 40 are the most")


@pytest.mark.parametrize(
    ("tag", "why"),
    [
        ("PY3-none-linux_x86_64", "would not be that of a variant"),
        (f"{TAG}.{'.'.join(f'manylinux_2_{one}_x86_64' for one in range(10, 19))}", "too long"),
    ],
)
def test_a_wheel_of_whose_variants_the_names_would_be_none_has_no_variants(
    drafted: Callable[..., Draft], tmp_path: Path, tag: str, why: str
) -> None:
    """One of them could be written, and the next not."""
    draft = replace(drafted(), tag=tag)
    check_without(draft, tmp_path, why)
    assert [path.suffix for path in (tmp_path / "site/files").iterdir()].count(".whl") == 1


def check_without(draft: Draft, tmp_path: Path, why: str) -> None:
    site = made([draft.write(tmp_path)], tmp_path / "site")
    [note] = site.notes
    assert note.startswith(f"demo-1.0-{draft.tag}.whl: no variants: ")
    assert why in note
    assert len(site.wheels) == 1
    assert not list((tmp_path / "site/files").glob("*variants.json"))


def test_a_wheel_that_contradicts_its_record_has_no_variants(
    drafted: Callable[..., Draft], tmp_path: Path
) -> None:
    spoilt = drafted()
    spoilt.rows = {MODULE: f"{MODULE},sha256=AAAA,1"}
    site = made([spoilt.write(tmp_path)], tmp_path / "site")
    [note] = site.notes
    assert "no variants" in note
    assert len(site.wheels) == 1


def test_gpus_without_a_variant_are_named(drafted: Callable[..., Draft], tmp_path: Path) -> None:
    wheel = drafted("sm_80 sm_90a sm_100a sm_120").write(tmp_path)
    site = made([wheel], tmp_path / "site")
    assert sorted(variants_in(tmp_path / "site")) == ["cu120_sm80", "cu128_sm120"]
    [note] = site.notes
    assert "compute capability 9.0, 10.0 take the whole wheel" in note


def test_code_of_which_no_driver_is_known_has_no_variants(
    tool: Callable[[str], str], drafted: Callable[..., Draft], tmp_path: Path
) -> None:
    """Of one of two libraries, whose cubins do not say which CUDA made them."""
    untold = made_up(sm(80), sm(90))
    draft = drafted()
    other = manyarchs.draft(tool, tmp_path / "linked", untold, untold)
    draft.files["demo/_D.so"] = other.files[MODULE]
    site = made([draft.write(tmp_path)], tmp_path / "site")
    assert not variants_in(tmp_path / "site").keys() & {"cu120_sm80", "cu120_sm90"}
    assert any("8.0, 8.6, 8.9, 9.0" in note and "which driver" in note for note in site.notes)
    [whole] = [one.offer for one in site.wheels if not one.variant]
    assert whole.gpus["8.0"].driver == ""


def test_a_variant_is_no_wheel_to_offer(drafted: Callable[..., Draft], tmp_path: Path) -> None:
    made([drafted().write(tmp_path)], tmp_path / "site")
    [variant] = (tmp_path / "site/files").glob("*_sm80.whl")
    for request in (Request(), Request(variants=True)):
        with pytest.raises(FormatError, match="it is a variant wheel"):
            write_site([variant], tmp_path / "other", request, silent)
    assert not (tmp_path / "other").exists()


def test_versions_that_are_the_same_cannot_both_have_variants(
    drafted: Callable[..., Draft], tmp_path: Path
) -> None:
    wheels = [drafted(version=version).write(tmp_path) for version in ("1.0+CU129", "1.0+cu129")]
    with pytest.raises(UsageError, match="the same names") as caught:
        made(wheels, tmp_path / "site")
    assert "1.0+CU129" in "".join(caught.value.details)
    assert not (tmp_path / "site").exists()
    write_site(wheels, tmp_path / "site", Request(), silent)


# -- what is in variants ---------------------------------------------------------------------------


def built_wheel(tool: Callable[[str], str], folder: Path) -> Path:
    """A wheel of two units with the record, lock, SBOM and statement of its build."""
    lock = statedwheels.demo_lock()
    files = statedwheels.demo_files(lock)
    record = statedwheels.demo_record(lock)
    slices = record["units"][0]["slices"]
    record["units"] = [{"name": f"csrc/{name}.o", "slices": dict(slices)} for name in "ab"]
    library = manyarchs.draft(tool, folder / "linked", NONE, NONE).files[MODULE]
    del files[statedwheels.BINARY], files[statedwheels.STATEMENT]
    files |= {
        MODULE: library,
        f"{statedwheels.INFO}/WHEEL": f"Wheel-Version: 1.0\nTag: {TAG}\n".encode(),
        statedwheels.RECORD: statedwheels.as_json(record),
        statedwheels.SBOM: sbom_bytes(lock, record, "demo", statedwheels.VERSION),
    }
    files[statedwheels.STATEMENT] = statement_bytes(
        statedwheels.subjects_of(files), predicate_of(lock, record)
    )
    name = statedwheels.NAME.replace("py3-none-any", TAG)
    return statedwheels.write(folder, files, name)


def test_a_variant_of_a_build_tells_of_the_build(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    wheel = built_wheel(tool, tmp_path)
    assert verify_wheel(wheel).ok
    made([wheel], tmp_path / "site")
    variants = sorted((tmp_path / "site/files").glob("*-cu*_*.whl"))
    assert variants
    assert verify_wheel(tmp_path / "site/files" / wheel.name).ok
    for one in variants:
        report = verify_wheel(one)
        assert report.ok, report.to_json()["checks"]
        assert report.result_of("provenance") == report.result_of("label") == "ok"
        assert report.evidence.papers.inside.keys() == {
            "fatwheel.json", "fatwheel.lock.json", "sboms/fatwheel.cdx.json",
            "fatwheel.provenance.json",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("label", "document", "wrong"),
    [
        ("-cu120_sm80", '{"variants": {"cu120_sm80": {}}}', ""),
        ("-cu120_sm80", '{"variants": {"cu120_sm90": {}}}', "do not agree"),
        ("-cu120_sm80", '{"variants": {"cu120_sm80": {}, "b": {}}}', "do not agree"),
        ("-cu120_sm80", '{"variants": 1}', "do not agree"),
        ("-cu120_sm80", "no JSON", "JSON"),
        ("-cu120_sm80", None, "there is no variant.json"),
        ("", '{"variants": {"cu120_sm80": {}}}', "no label of a variant"),
    ],
)
def test_verify_compares_a_label_with_what_is_told_of_it(
    drafted: Callable[..., Draft], tmp_path: Path, label: str, document: str | None, wrong: str
) -> None:
    one = drafted("sm_80")
    if document is not None:
        one.files["demo-1.0.dist-info/variant.json"] = document.encode()
    path = replace(one, filename=f"demo-1.0-{TAG}{label}.whl").write(tmp_path)
    [check] = [check for check in verify_wheel(path).checks if check.name == "names"]
    assert " ".join(finding.what for finding in check.findings).count(wrong or "no fault") == bool(
        wrong
    )


def test_a_list_of_before_is_still_read(drafted: Callable[..., Draft], tmp_path: Path) -> None:
    """wheels.json without a word of variants."""
    wheel = drafted().write(tmp_path)
    write_site([wheel], tmp_path / "site", Request(), silent)
    path = tmp_path / "site" / LIST
    content = json.loads(path.read_bytes())
    for one in content["wheels"]:
        assert one.pop("variant") is None
    path.write_text(json.dumps(content))
    assert len(write_site([], tmp_path / "site", Request(), silent).wheels) == 1


def test_members_of_a_variant_have_the_times_of_its_wheel(
    drafted: Callable[..., Draft], tmp_path: Path
) -> None:
    made([drafted().write(tmp_path)], tmp_path / "site")
    found = []
    for path in (tmp_path / "site/files").glob("*-cu*.whl"):
        with zipfile.ZipFile(path) as archive:
            found.append({member.date_time for member in archive.infolist()})
    assert len({tuple(times) for times in found}) == 1
