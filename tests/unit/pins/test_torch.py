"""Wheels of torch by their names, and what METADATA says of them."""

from __future__ import annotations

import pytest
from unearth import Link

from fatwheel.pins.torch import ListedTorch, Needs, _requirements, found_in, newest, with_cuda
from fatwheel.toolchain.pipconfig import RefusedError

BASE = "https://host.test/whl"


def links(*files: str) -> dict[str, list[Link]]:
    return {file: [Link(f"{BASE}/{file.replace('+', '%2B')}")] for file in files}


def wheel(version: str, tags: str) -> str:
    return f"torch-{version}-{tags}.whl"


LINUX, WINDOWS = "manylinux_2_28_x86_64", "win_amd64"


def test_the_newest_release_is_no_candidate_and_no_other_series() -> None:
    own = links(
        wheel("2.8.0", f"cp311-cp311-{LINUX}"),
        wheel("2.8.1", f"cp311-cp311-{LINUX}"),
        wheel("2.8.2rc1", f"cp311-cp311-{LINUX}"),
        wheel("2.80.0", f"cp311-cp311-{LINUX}"),
        "torch-2.8.9.tar.gz",
    )
    theirs = links(wheel("2.8.3+cu128", f"cp311-cp311-{LINUX}"))
    assert newest("2.8", own) == "2.8.1"
    assert newest("2.8", own, theirs) == "2.8.3"
    assert newest("2.8.0", own, theirs) == "2.8.0"
    assert newest("2.9", own) is None


def test_wheels_are_found_by_python_platform_and_cuda() -> None:
    listed = links(
        wheel("2.8.0+cu128", f"cp311-cp311-{LINUX}"),
        wheel("2.8.0+cu128", f"cp313-cp313t-{LINUX}"),
        wheel("2.8.0+cu128", f"cp311-cp311-{WINDOWS}"),
        wheel("2.8.0+cpu", f"cp311-cp311-{LINUX}"),
        wheel("2.8.0+rocm6.4", f"cp311-cp311-{LINUX}"),
        wheel("2.8.1+cu128", f"cp311-cp311-{LINUX}"),
        wheel("2.8.0", f"cp311-cp311-{LINUX}"),
    )
    asked = (["3.11", "3.13"], ["linux-x86_64", "win-amd64"])
    theirs = [(one.cuda, one.platform) for one in found_in(listed, "2.8.0", *asked, own=False)]
    assert theirs == [("12.8", "linux-x86_64"), ("12.8", "win-amd64")]
    [own] = found_in(listed, "2.8.0", *asked, own=True)
    assert (own.file, own.cuda, own.url) == (wheel("2.8.0", f"cp311-cp311-{LINUX}"), "", "")


def test_of_several_builds_the_newest_is_taken() -> None:
    plain, third = (
        wheel("2.10.0", f"cp311-cp311-{LINUX}"),
        f"torch-2.10.0-3-cp311-cp311-{LINUX}.whl",
    )
    [one] = found_in(links(third, plain), "2.10.0", ["3.11"], ["linux-x86_64"], own=True)
    assert one.file == third, "as pip does"


def found(platform: str, python: str = "3.11", cuda: str = "") -> ListedTorch:
    return ListedTorch("torch.whl", python, platform, cuda, (Link(BASE),), "")


METADATA = b"""\
Metadata-Version: 2.1
Name: torch
Requires-Dist: filelock
Requires-Dist: sympy (==1.13.1) ; python_version >= "3.9"
Requires-Dist: setuptools; python_version >= "3.12"
Requires-Dist: nvidia-cuda-runtime-cu12 (==12.4.127) ; platform_system == "Linux"
Requires-Dist: triton==3.2.0; platform_system == "Linux" and platform_machine == "x86_64"
Requires-Dist: opt-einsum>=3.3; extra == "opt-einsum"

Requires-Dist: nothing, this is its description
"""


@pytest.mark.parametrize(
    ("platform", "python", "needed"),
    [
        ("win-amd64", "3.11", ["filelock", "sympy==1.13.1"]),
        ("win-amd64", "3.12", ["filelock", "sympy==1.13.1", "setuptools"]),
        (
            *("linux-aarch64", "3.11"),
            ["filelock", "sympy==1.13.1", "nvidia-cuda-runtime-cu12==12.4.127"],
        ),
        (
            *("linux-x86_64", "3.11"),
            [
                *("filelock", "sympy==1.13.1", "nvidia-cuda-runtime-cu12==12.4.127"),
                "triton==3.2.0",
            ],
        ),
    ],
)
def test_requirements_hold_for_the_wheel_not_for_this_machine(
    platform: str, python: str, needed: list[str]
) -> None:
    assert list(_requirements(METADATA, found(platform, python))) == needed


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"Requires-Dist: ==1", "cannot be read"),
        (b"Requires-Dist: six; python_version ~= 'new'", "cannot be read"),
        (b"Requires-Dist: six; " + b"(" * 3000 + b"'1' == '1'" + b")" * 3000, "cannot be read"),
        (b"Requires-Dist: evil @ https://elsewhere.test/evil.whl", "from a place of its own"),
    ],
)
def test_requirements_that_are_refused(line: bytes, told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        list(_requirements(line + b"\n", found("linux-x86_64")))


@pytest.mark.parametrize(
    ("requirement", "cuda"),
    [
        ("nvidia-cuda-runtime-cu12==12.4.127", "12.4"),
        ("nvidia-cuda-runtime==13.0.96", "13.0"),
        ("nvidia-cuda-runtime~=13.0.48", "13.0"),
        ("cuda-toolkit[cublas,cudart]==13.2.2", "13.2"),
        ("cuda-toolkit==13.0.*", "13.0"),
        ("cuda-toolkit==13", None),
        ("cuda-toolkit==13.99999", None),
        ("filelock", None),
    ],
)
def test_metadata_tells_the_cuda(requirement: str, cuda: str | None) -> None:
    one = with_cuda(found("linux-x86_64"), Needs(("sympy", requirement), 0))
    assert (one and one.cuda) == cuda
