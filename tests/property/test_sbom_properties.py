"""SBOMs of random locks: valid, complete, read back, and not dependent on the order of the pins."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from fatwheel.config.pinned import Download, Package, Sdist
from fatwheel.config.recipe import Recipe, SourcePin
from fatwheel.config.toolchain import Base, Containers, LockedInterpreter, Toolchain, TorchBuild
from fatwheel.model import Host
from fatwheel.provenance.lock import BuildLock, materials_of
from fatwheel.provenance.sbom import materials_in, sbom_bytes

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)

SHA256 = st.sampled_from("0123456789abcdef").map(lambda digit: digit * 64)
# Few names and hashes, so that some come twice; some that need quoting, in JSON and in a purl.
NAMES = st.sampled_from(
    ["ninja", "torch", "Some_Name", "a.b", "pkg@1", "ü/%?&#", 'quo"te\\', "a\nb"]
)
VERSIONS = st.sampled_from(["1.0", "2.1.1+cu121", "13.0.88", "1!2", "", "v é"])
FILES = st.sampled_from(["ninja-1.0-py3-none-any.whl", "torch-2.1.1+cu121.whl", "a b.zip", "ü"])
URLS = ["", "https://example.org/torch-2.1.1%2Bcu121.whl", "http://a/?q=1&r=ü"]
ROLES = st.sampled_from(["compiler", "build", "runtime", "installer"])


def package(name: str, version: str, file: str, sha256: str, role: str) -> Package:
    """The same file has the same size and URL, wherever it is listed."""
    return Package(name, version, file, *sized(sha256), role, url(sha256))


def download(name: str, version: str, file: str, sha256: str) -> Download:
    return Download(name, version, url(sha256), file, *sized(sha256))


def sized(sha256: str) -> tuple[int, str]:
    return int(sha256[0], 16) + 1, sha256


def url(sha256: str) -> str:
    return URLS[int(sha256[0], 16) % len(URLS)]


PACKAGES = st.builds(package, NAMES, VERSIONS, FILES, SHA256, ROLES)
DOWNLOADS = st.builds(download, NAMES, VERSIONS, FILES, SHA256)
SDISTS = st.builds(package, NAMES, VERSIONS, FILES, SHA256, st.just("source"))
BASES = st.builds(
    Base,
    st.sampled_from(["python:3.11-bookworm", "a/b", "host:5000/a/b:tag", "c"]),
    SHA256.map(lambda digest: f"sha256:{digest}"),
    st.just(()),
)
SEVERAL = {"max_size": 4}


@st.composite
def locks(draw: st.DrawFn) -> BuildLock:
    sdist = Sdist(**vars(draw(SDISTS)))
    recipe = Recipe(
        name="demo", project="demo", version="1.0", source=SourcePin(package=sdist), archs=(),
        environment={}, imports=(), memory=0, seconds=0, costs=(), epoch=0, folder=Path("/x"),
        digest="", runtime=tuple(draw(st.lists(PACKAGES, **SEVERAL))),
    )  # fmt: skip
    interpreters = [LockedInterpreter("3.11", one) for one in draw(st.lists(DOWNLOADS, max_size=1))]
    toolchain = Toolchain(
        name="t", platform="linux-x86_64", cuda="13.0", nvcc="13.0.88", archs=(), gcc=(9, 15),
        packages=tuple(draw(st.lists(PACKAGES, **SEVERAL))),
        builds=(TorchBuild("2.11.0", "3.11", tuple(draw(st.lists(PACKAGES, **SEVERAL)))),),
        digest="", default_torch="2.11.0",
        cuda_files=tuple(draw(st.lists(DOWNLOADS, **SEVERAL))),
        interpreters=tuple(interpreters),
        containers=Containers("linux", 0, tuple(draw(st.lists(BASES, max_size=1)))),
    )  # fmt: skip
    host = Host(draw(st.sampled_from(["g++ 12.2.0", "cl 19.38.33130"])), draw(SHA256), "3.11.7")
    return BuildLock(recipe=recipe, toolchain=toolchain, python="3.11", torch="2.11.0", host=host)


def turned(lock: BuildLock) -> BuildLock:
    """The same pins in another order."""
    toolchain = dataclasses.replace(
        lock.toolchain,
        packages=lock.toolchain.packages[::-1],
        cuda_files=lock.toolchain.cuda_files[::-1],
    )
    return dataclasses.replace(lock, toolchain=toolchain)


@settings(max_examples=30)
@given(locks())
def test_every_material_of_a_lock_is_in_its_sbom_once(lock: BuildLock) -> None:
    data = sbom_bytes(lock, {}, "demo", "1.0+cu130")
    assert VALIDATOR.validate_str(data.decode()) is None
    right = Counter((one.name, one.version, one.sha256) for one in materials_of(lock))
    assert Counter(materials_in(data, "W")) == right
    roles = Counter(
        value["value"]
        for one in json.loads(data)["components"]
        for value in one["properties"]
        if value["name"] == "fatwheel:role"
    )
    assert roles == Counter(one.role for one in materials_of(lock))
    assert sbom_bytes(turned(lock), {}, "demo", "1.0+cu130") == data
