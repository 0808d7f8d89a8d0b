"""Sound documents for the fuzzer: what builds write beside code, recipes and toolchains.

Small ones, in which everything is that may be there; and a real one of each.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from fatwheel.provenance.lock import BuildLock, lock_bytes
from fatwheel.provenance.record import RecordedRecipe, RecordedToolchain, record_bytes
from fatwheel.provenance.sbom import sbom_bytes
from fatwheel.provenance.signing import envelope_bytes
from fatwheel.provenance.statement import predicate_of, statement_bytes

from ..helpers.pinned import pinned
from ..helpers.somelocks import LINUX, ROOT, WINDOWS, full_lock, some_lock

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST = 3  # items of a list that are kept


def documents() -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """By kind, by name."""
    locks = {
        "full": full_lock(), "folder": full_lock(folder=True),
        "linux": some_lock(LINUX, "selftest"), "windows": some_lock(WINDOWS),
    }  # fmt: skip
    yield "lock", {name: lock_bytes(lock) for name, lock in locks.items()}
    record = _record(full_lock())
    other = {**record, "toolchain": {**record["toolchain"], "cuda": "12.4"}}
    several = {"schema": 1, "stitched": [record, other]}
    yield "record", {"one": record_bytes(record), "several": record_bytes(several)}
    predicate = predicate_of(full_lock(), record)
    statement = statement_bytes([("demo/_C.so", "1" * 64), ("demo/a.py", "2" * 64)], predicate)
    yield "statement", {"one": statement}
    yield "sbom", {"one": sbom_bytes(full_lock(), record, "demo", "1.0+cu123")}
    signer = CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    yield "envelope", {"one": envelope_bytes(statement, signer)}
    yield "recipe", dict(_recipes())
    yield "toolchain", dict(_toolchains())


def _record(lock: BuildLock) -> dict[str, Any]:
    slices = {"sm_80": "1" * 64, "sm_90": "2" * 64, "compute_90": None}
    return {
        "schema": 1,
        "fatwheel": "0.1.0",
        "lock": hashlib.sha256(lock_bytes(lock)).hexdigest(),
        "recipe": RecordedRecipe.of(lock.recipe).model_dump(),
        "toolchain": RecordedToolchain.of(lock.toolchain).model_dump(),
        "python": "3.11",
        "torch": "2.1.0",
        "archs": ["80", "90+ptx"],
        "front": "auto",
        "fronts": [
            {"virtual": "compute_80", "codes": ["sm_80"]},
            {"virtual": "compute_90", "codes": ["sm_90", "compute_90"]},
        ],
        "units": [{"name": "csrc/a", "slices": slices}, {"name": "csrc/b", "slices": slices}],
    }


def _recipes() -> Iterator[tuple[str, bytes]]:
    for name in ("selftest", "flash-attn"):
        content = _toml(f"kernels/{name}/recipe.toml")
        content.pop("verify", None)
        yield f"{name}.toml", tomli_w.dumps({**content, **_EVERY}).encode()


_EVERY = {
    "subdirectory": "python", "stub_commands": ["git"], "environment": {"FORCE_CUDA": "1"},
    "memory": "4GiB", "seconds": 10.5, "epoch": 1_700_000_000,
    "cost": [{"units": "*_bwd_*", "memory": "1GiB", "seconds": 3}],
}  # fmt: skip


def _toolchains() -> Iterator[tuple[str, bytes]]:
    """With a few of the files alone; not one build lacks its torch."""
    for name in (LINUX, WINDOWS, "linux-cuda12.3"):
        content = pinned(name)
        content["name"] = "seed"
        build = next(one for one in content["builds"] if one["python"] == "3.11")
        build["packages"].sort(key=lambda one: one["name"] != "torch")
        build["packages"] = build["packages"][:_MOST]
        content["builds"] = [build]
        content["default_torch"] = build["torch"]
        kept = [one for one in content["packages"] if one["role"] == "installer"]
        content["packages"] = [*content["packages"][:_MOST], *kept]
        for key in ("cuda_files", "interpreters"):
            if key in content:
                content[key] = [one for one in content[key] if one.get("python", "3.11") == "3.11"]
                content[key] = content[key][:_MOST]
        yield f"{name}.toml", tomli_w.dumps(content).encode()


def _toml(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))
