"""Which packages bring which libraries (providers.toml), and where torch for a CUDA comes from."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def package_of(library: str, cuda: str) -> str:
    """The package on the index that brings a library; '' where none is known.

    cuda: the major version of torch's CUDA, for libraries whose names do not tell theirs; or ''.
    """
    for provider in _data()["provider"]:
        for pattern in provider["patterns"]:
            match = re.fullmatch(pattern, library)
            if not match:
                continue
            groups = match.groupdict()
            version = groups.get("version") or ""
            major = groups.get("cuda") or provider.get("cudas", {}).get(version) or cuda
            return _named(provider, str(major))
    return ""


def brings_runtime(package: str) -> bool:
    """Whether CUDA's runtime comes with a package: its name as PEP 503 normalises it."""
    return any(re.fullmatch(pattern, package) for pattern in _data()["bring_runtime"])


def _named(provider: dict[str, Any], major: str) -> str:
    name = str(provider["package"])
    if provider.get("named"):
        return name
    if not major:
        return ""
    if "{cuda}" in name:
        return name.replace("{cuda}", major)
    return name if int(major) >= int(_data()["plain_from"]) else f"{name}-cu{major}"


def is_redistributable(library: str) -> bool:
    """Whether Visual C++'s runtime brings it."""
    return re.fullmatch(_data()["redistributable"], library, re.IGNORECASE) is not None


def torch_index(cuda: str) -> str:
    """The index of torch for a CUDA, `12.8`."""
    return str(_data()["torch_index"]).replace("{cuda}", cuda.replace(".", ""))


@functools.cache
def _data() -> dict[str, Any]:
    with Path(__file__).with_name("providers.toml").open("rb") as stream:
        return tomllib.load(stream)
