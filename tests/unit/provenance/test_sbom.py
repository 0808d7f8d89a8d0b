from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from fatwheel import __version__
from fatwheel.config.pinned import Sdist
from fatwheel.config.recipe import SourcePin
from fatwheel.errors import FormatError
from fatwheel.provenance.lock import BuildLock, materials_of
from fatwheel.provenance.sbom import FILE, materials_in, sbom_bytes
from fatwheel.storage.documents import json_bytes

from ...helpers.somelocks import LINUX, TOOLCHAINS, WINDOWS, some_lock

NAME, VERSION = "causal_conv1d", "1.5.2+cu130torch2.11.sm80.sm86"
RECORD: dict[str, Any] = {"archs": ["80", "86+ptx"], "lock": "ab" * 32}


def written(lock: BuildLock, **record: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom_bytes(lock, {**RECORD, **record}, NAME, VERSION))
    return found


def component(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = [one for one in document["components"] if one["name"] == name]
    assert len(found) == 1, f"{len(found)} components are called {name}"
    return found[0]


def properties(part: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in part["properties"]}


def test_it_lies_where_pep_770_says() -> None:
    assert Path(FILE).parent.name == "sboms"
    assert FILE.endswith(".cdx.json")  # CycloneDX' own word for its JSON files


@pytest.mark.parametrize(
    ("toolchain", "kernel"),
    [*((toolchain, "causal-conv1d") for toolchain in TOOLCHAINS), (LINUX, "selftest")],
)
def test_it_is_valid_by_the_published_schema(toolchain: str, kernel: str) -> None:
    text = sbom_bytes(some_lock(toolchain, kernel), RECORD, NAME, VERSION).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_every_material_is_there_once(toolchain: str) -> None:
    lock = some_lock(toolchain)
    found = Counter(
        (one["name"], one.get("version", ""), one["hashes"][0]["content"])
        for one in written(lock)["components"]
    )
    assert found == Counter((one.name, one.version, one.sha256) for one in materials_of(lock))


def test_what_recipe_and_toolchain_both_list_is_one_material() -> None:
    lock = some_lock()
    numpy = next(one for one in lock.toolchain.builds[0].packages if one.name == "numpy")
    both = dataclasses.replace(lock, recipe=dataclasses.replace(lock.recipe, runtime=(numpy,)))
    assert [one.name for one in materials_of(both)].count("numpy") == 1
    assert component(written(both), "numpy")["hashes"][0]["content"] == numpy.sha256


def test_it_is_about_the_wheel() -> None:
    about = written(some_lock())["metadata"]["component"]
    assert (about["name"], about["version"]) == (NAME, VERSION)
    purl = PackageURL.from_string(about["purl"])
    assert (purl.type, purl.name, purl.version) == ("pypi", "causal-conv1d", VERSION)
    assert properties(about) == {
        "fatwheel:archs": "80 86+ptx",
        "fatwheel:cuda": "13.0",
        "fatwheel:lock": "ab" * 32,
        "fatwheel:python": "3.10",
        "fatwheel:recipe": "causal-conv1d",
        "fatwheel:toolchain": LINUX,
        "fatwheel:torch": "2.11.0",
    }


def test_it_says_who_wrote_it_and_when_in_the_wheel_s_life() -> None:
    metadata = written(some_lock())["metadata"]
    tools = metadata["tools"]["components"]
    assert [(one["name"], one["version"]) for one in tools] == [("fatwheel", __version__)]
    assert metadata["lifecycles"] == [{"phase": "build"}]


def test_a_package_by_its_name_file_and_hash() -> None:
    sha256 = "65a24341b5ac09fcadcc37082660be40a94174e51a937fabf6e2cae26225fa2c"
    ninja = component(written(some_lock()), "ninja")
    assert ninja["hashes"] == [{"alg": "SHA-256", "content": sha256}]
    assert ninja["scope"] == "excluded"
    file = "ninja-1.13.2-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
    assert properties(ninja) == {
        "fatwheel:role": "build", "fatwheel:filename": file, "fatwheel:size": "183365",
    }  # fmt: skip
    assert PackageURL.from_string(ninja["purl"]) == PackageURL(
        "pypi", None, "ninja", "1.13.2", {"file_name": file}
    )


def test_a_file_from_a_url_by_that_url() -> None:
    nvcc = component(written(some_lock(WINDOWS)), "cuda_nvcc")
    sha256 = "8398faefe86092b434d6be2f0b74addae639965217b8fb8f77099c8d75eb99df"
    [reference] = nvcc["externalReferences"]
    assert reference["type"] == "distribution"
    assert reference["url"].endswith("/cuda_nvcc-windows-x86_64-12.3.107-archive.zip")
    assert reference["hashes"] == [{"alg": "SHA-256", "content": sha256}]
    purl = PackageURL.from_string(nvcc["purl"])
    assert (purl.type, purl.name, purl.version) == ("generic", "cuda_nvcc", "12.3.107")
    assert purl.qualifiers == {"download_url": reference["url"]}


def test_the_compiler_of_the_machine_has_no_name_elsewhere() -> None:
    host = component(written(some_lock()), "g++")
    assert (host["version"], host["hashes"][0]["content"]) == ("12.2.0", "c0" * 32)
    assert (host["type"], properties(host)) == ("application", {"fatwheel:role": "host"})
    assert "purl" not in host


def test_a_source_folder_is_a_material_too() -> None:
    lock = some_lock(kernel="selftest")
    source = component(written(lock), "fatwheel-selftest")
    assert source["hashes"][0]["content"] == lock.recipe.source.sha256
    assert (source["scope"], properties(source)) == ("required", {"fatwheel:role": "source"})


DIGEST = "sha256:" + "d1" * 32


@pytest.mark.parametrize(
    ("reference", "purl"),
    [  # as the purl specification spells OCI images
        ("python:3.11", PackageURL("oci", None, "python", DIGEST, {"tag": "3.11"})),
        (
            "mcr.microsoft.com/windows/servercore:ltsc2022",
            PackageURL("oci", None, "servercore", DIGEST, {
                "repository_url": "mcr.microsoft.com/windows/servercore", "tag": "ltsc2022",
            }),
        ),
        (
            "localhost:5000/base",
            PackageURL("oci", None, "base", DIGEST, {"repository_url": "localhost:5000/base"}),
        ),
    ],
)  # fmt: skip
def test_a_base_image_by_its_digest(reference: str, purl: PackageURL) -> None:
    lock = some_lock()
    assert lock.toolchain.containers is not None
    [base] = lock.toolchain.containers.bases
    base = dataclasses.replace(base, reference=reference, digest=DIGEST)
    containers = dataclasses.replace(lock.toolchain.containers, bases=(base,))
    toolchain = dataclasses.replace(lock.toolchain, containers=containers)
    image = component(written(dataclasses.replace(lock, toolchain=toolchain)), reference)
    assert PackageURL.from_string(image["purl"]) == purl
    assert (image["type"], image["scope"]) == ("container", "excluded")


def test_the_wheel_needs_its_source_and_what_is_there_at_run_time() -> None:
    lock = some_lock()
    document = written(lock)
    names = {one["bom-ref"]: one["name"] for one in document["components"]}
    # Of the libraries it is not known what they depend on: no entry, rather than an empty one.
    [entry] = document["dependencies"]
    assert entry["ref"] == document["metadata"]["component"]["bom-ref"]
    needed = {names[reference] for reference in entry["dependsOn"]}
    assert needed == {
        one.name for one in materials_of(lock) if one.role in ("source", "runtime")
    }  # fmt: skip
    assert {"torch", "numpy", "causal_conv1d"} <= needed
    required = {one["name"] for one in document["components"] if one["scope"] == "required"}
    assert required == needed


def test_nothing_but_the_lock_and_the_record_decides_the_bytes() -> None:
    code = (
        "import json, sys; from tests.unit.provenance.test_sbom import *;"
        "sys.stdout.buffer.write(sbom_bytes(some_lock(), RECORD, NAME, VERSION))"
    )
    expected = sbom_bytes(some_lock(), RECORD, NAME, VERSION)
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE)
    assert ran.stdout == expected
    assert b"timestamp" not in expected


def test_no_list_is_in_an_order_that_its_writer_chose() -> None:
    def check(part: Any) -> None:
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        if isinstance(part, list):
            texts = [json.dumps(one, sort_keys=True) for one in part]
            assert texts == sorted(texts)
        for one in inner:
            check(one)

    check(written(some_lock()))


def test_the_serial_number_is_that_of_the_content() -> None:
    numbers = [
        written(some_lock())["serialNumber"],
        written(some_lock(), archs=["80"])["serialNumber"],
        written(some_lock(kernel="selftest"))["serialNumber"],
    ]
    assert len(set(numbers)) == 3


def test_a_record_of_several_builds_says_nothing_of_architectures() -> None:
    about = written(some_lock(), archs=None)["metadata"]["component"]
    assert "fatwheel:archs" not in properties(about)


@pytest.mark.parametrize("change", [{"name": ""}, {"version": "\ud800"}])
def test_a_lock_that_no_sbom_can_hold_is_refused(change: dict[str, str]) -> None:
    package = Sdist("demo", "1.0", "demo-1.0.tar.gz", 1, "ab" * 32, "source")
    lock = some_lock()
    source = SourcePin(package=dataclasses.replace(package, **change))  # type: ignore[arg-type]
    recipe = dataclasses.replace(lock.recipe, source=source)
    with pytest.raises(FormatError, match="no SBOM can be made of the lock"):
        sbom_bytes(dataclasses.replace(lock, recipe=recipe), RECORD, NAME, VERSION)


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_what_was_written_is_read_back(toolchain: str) -> None:
    lock = some_lock(toolchain)
    found = materials_in(sbom_bytes(lock, RECORD, NAME, VERSION), "W")
    assert list(found) == sorted((m.name, m.version, m.sha256) for m in materials_of(lock))


SOUND: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "components": [{"name": "a", "hashes": [{"alg": "MD5", "content": "x"}]}],
}


def test_a_component_may_lack_version_and_hash() -> None:
    assert materials_in(json_bytes(SOUND), "W") == (("a", "", ""),)
    assert materials_in(json_bytes({**SOUND, "components": []}), "W") == ()


TWICE = [{"alg": "SHA-256", "content": "a"}, {"alg": "SHA-256", "content": "b"}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bomFormat": "SPDX"}, "does not say that it is CycloneDX"),
        ({"specVersion": "1.9"}, "CycloneDX 1.9; supported: 1.6"),
        ({"specVersion": None}, "supported: 1.6"),
        ({"components": {}}, "its components are not a list"),
        ({"components": ["a"]}, "a component is not an object"),
        ({"components": [{"version": "1"}]}, "not text"),
        ({"components": [{"name": "a", "version": 1}]}, "not text"),
        ({"components": [{"name": "a", "hashes": {}}]}, "its hashes are not a list"),
        ({"components": [{"name": "a", "hashes": [{"alg": "SHA-256"}]}]}, "not text"),
        ({"components": [{"name": "a", "hashes": TWICE}]}, "has several sha256"),
    ],
)
def test_a_damaged_one_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError, match=said) as caught:
        materials_in(json_bytes({**SOUND, **change}), "W.whl: sboms")
    assert caught.value.where == "W.whl: sboms"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        json_bytes(SOUND)[:-1],  # only the last line end is missing
        json_bytes(SOUND).replace(b'"specVersion"', b'"specVersion": "1.6",\n "specVersion"'),
    ],
)
def test_what_fatwheel_does_not_write_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        materials_in(data, "W")
