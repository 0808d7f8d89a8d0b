"""Which driver a library needs on which GPU; what is expected is from NVIDIA's release notes."""

from __future__ import annotations

import pytest

from fatwheel.arch import parse_arch
from fatwheel.verify.contents import Archs, Contents, Image, KernelContainer
from fatwheel.verify.drivers import (
    LINUX,
    WINDOWS,
    in_words,
    jit_in_words,
    needs_of,
    parse_tables,
    planned,
    tables,
)

Version = tuple[int, int]


def image(name: str, version: Version | None, compression: str = "") -> Image:
    kind = "elf" if name.startswith("sm_") else "ptx"
    return Image(kind, parse_arch(name), 1, compression, version)


def library(*units: tuple[Image, ...], format_: str = "elf", **how: tuple[Archs, ...]) -> Contents:
    found = tuple(
        KernelContainer(number, ("kernel",), held, **how) for number, held in enumerate(units)
    )
    held = tuple(one for unit in units for one in unit)
    return Contents("a.so", format_, "x86_64", len(units), held, found)


def drivers(contents: Contents, *runtimes: str) -> dict[str, str]:
    return {gpu: need.driver for gpu, need in needs_of(contents, runtimes).items()}


def test_machine_code_needs_the_driver_of_its_cudas_major_version() -> None:
    """CUDA 12.8's code for an A100 runs with the driver of CUDA 12.0."""
    assert drivers(library((image("sm_80", (12, 8)),))) == {
        "8.0": "525.60.13", "8.6": "525.60.13", "8.9": "525.60.13",
    }  # fmt: skip
    assert drivers(library((image("sm_90", (11, 8)),)))["9.0"] == "520.61.05"  # the first for H100
    assert drivers(library((image("sm_90", (13, 2)),)))["9.0"] == "580"
    assert drivers(library((image("sm_90", (12, 4)),), format_="pe"))["9.0"] == "528.33"


def test_ptx_needs_the_driver_of_its_own_cuda_where_there_is_no_machine_code() -> None:
    found = needs_of(library((image("sm_80", (12, 8)), image("compute_80", (8, 7)))))
    assert [need.driver for need in found.values()] == [
        "525.60.13", "525.60.13", "525.60.13", "570.26", "570.26", "575.51.03", "570.26",
    ]  # fmt: skip
    assert (found["8.6"].kind, found["9.0"].kind, found["10.3"].kind) == ("cuda", "ptx", "gpu")
    assert (
        in_words(found)
        == "driver 525.60.13 or newer (CUDA 12); on 9.0, 10.0, 12.0 PTX 8.7 needs 570.26"
    )


def test_ptx_that_two_cudas_have_needs_the_older_ones_driver() -> None:
    assert drivers(library((image("compute_80", (8, 5)),)))["8.0"] == "555.42.02"  # CUDA 12.5, 12.6


def test_images_in_a_compression_need_a_driver_that_reads_it() -> None:
    packed = library((image("sm_80", (12, 8), "zstd"), image("sm_90", (12, 8), "lz4")))
    found = needs_of(packed)
    assert found["8.0"].driver == "550.54.14"
    assert found["8.0"].reason == "zstd compression"
    assert found["9.0"].driver == "525.60.13"
    assert drivers(library((image("sm_80", (13, 0), "zstd"),)))["8.0"] == "580"


def test_the_runtime_that_is_asked_for_counts() -> None:
    assert drivers(library((image("sm_80", (11, 8)),)), "12")["8.0"] == "525.60.13"


def test_the_unit_that_needs_most_decides() -> None:
    mixed = library((image("sm_80", (11, 8)),), (image("sm_80", (13, 0)), image("sm_90", (12, 0))))
    assert drivers(mixed)["8.0"] == "580"


@pytest.mark.parametrize(
    "contents",
    [
        library((image("sm_80", None),)),
        library((image("sm_80", (12, 8)),), (image("sm_80", None),)),
        library((image("sm_80", (99, 1)),)),  # a CUDA that the tables do not know
        library((image("compute_80", (77, 0)),)),
        library((image("sm_110", (13, 0)),)),  # a Jetson's
        library(),
        library(
            (image("sm_120", (12, 8)),),
            relocatable=(Archs(frozenset(), frozenset({parse_arch("80")})),),
        ),
    ],
)
def test_what_cannot_be_told_is_not_claimed(contents: Contents) -> None:
    assert set(drivers(contents)) <= {"12.0"}
    assert in_words({}) == ""


def test_a_plan_says_what_its_wheels_will_need() -> None:
    codes = ["sm_80", "sm_86", "compute_86"]
    found = needs_of(planned(codes, "12.6", "linux-x86_64"))
    assert in_words(found) == "driver 525.60.13 or newer (CUDA 12); on 9.0 PTX 8.5 needs 555.42.02"
    assert drivers(planned(codes, "12.6", "win-amd64"))["9.0"] == "555.85"
    assert drivers(planned(codes, "99.1.7", "linux-x86_64")) == {}


def test_jit_is_told_of() -> None:
    assert jit_in_words([]) == ""
    assert "for 9.0, 12.0 is PTX alone" in jit_in_words(["9.0", "12.0"])


def test_a_cuda_that_comes_with_a_driver_is_found() -> None:
    """NVIDIA's table of drivers and toolkits ("CUDA Toolkit Release Notes", table 3)."""
    assert tables().cuda_with("525.60.13", LINUX) == (12, 0)
    assert tables().cuda_with("525.60.14", LINUX) == (12, 1)
    assert tables().cuda_with("450.80.02", LINUX) == (11, 1), "R450 came with 11.0, from 450.51 on"
    assert tables().cuda_with("551.61", WINDOWS) == (12, 4)
    assert tables().cuda_with("99999.1", LINUX) is None


def test_the_tables_are_in_order_and_whole() -> None:
    """Newer CUDAs have newer PTX and newer drivers; a GPU is new once."""
    releases = tables().releases
    for name in ("cuda", "ptx"):
        versions = [getattr(release, name) for release in releases]
        assert versions == sorted(set(versions)), name
    for system in ("linux", "windows"):
        found = [tuple(map(int, release.drivers[system].split("."))) for release in releases]
        assert found == sorted(found), system
    archs = [arch for release in releases for arch in release.archs]
    assert len(archs) == len(set(archs))
    assert {release.cuda[0] for release in releases} == set(tables().majors)


def test_a_cuda_is_added_by_a_few_lines_of_data() -> None:
    found = parse_tables(
        {
            "compression": {},
            "major": [{"cuda": 99, "linux": "900", "windows": "901"}],
            "release": [
                {"cuda": "99.1", "ptx": "77.1", "linux": "910", "windows": "911", "archs": [200]}
            ],
        }
    )
    assert found.for_cuda(99, "linux").driver == "900"  # type: ignore[union-attr]
    assert found.for_ptx((77, 0), "windows").driver == "911"  # type: ignore[union-attr]
    assert found.for_gpu(parse_arch("200"), "linux").driver == "910"  # type: ignore[union-attr]
    assert found.ptx_of((99, 1)) == (77, 1)
    assert found.ptx_of((99, 2)) is None
