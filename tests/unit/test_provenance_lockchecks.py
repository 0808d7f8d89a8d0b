"""What in a lock no build could use: each value as the files of recipes and toolchains have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fatwheel.provenance.buildlock import BuildLock
from fatwheel.provenance.lockchecks import digest_mistakes, mistakes_in, name_mistakes

from .somelocks import LINUX, TOOLCHAINS, WINDOWS, some_lock


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
@pytest.mark.parametrize("kernel", ["causal-conv1d", "selftest", "flash-attn"])
def test_locks_of_builds_have_no_mistakes(toolchain: str, kernel: str) -> None:
    assert list(mistakes_in(some_lock(toolchain, kernel))) == []


def recipe(**other: Any) -> BuildLock:
    lock = some_lock()
    return replace(lock, recipe=replace(lock.recipe, **other))


def toolchain(name: str = LINUX, **other: Any) -> BuildLock:
    lock = some_lock(name)
    return replace(lock, toolchain=replace(lock.toolchain, **other))


def pin(**other: Any) -> BuildLock:
    first, *rest = some_lock().toolchain.packages
    return toolchain(packages=(replace(first, **other), *rest))


MISTAKES = {
    "a variable that ends early": (recipe(environment={"A": "x\0y"}), "NUL"),
    "a variable's name with =": (recipe(environment={"A=B": "x"}), "'A=B'"),
    "a variable's name with NUL": (recipe(environment={"A\0": "x"}), "'A\\x00'"),
    "a variable of fatwheel's": (recipe(environment={"FATWHEEL_CACHE": "/"}), "FATWHEEL_CACHE"),
    "a command elsewhere": (recipe(stub_commands=("../../bin/sh",)), "'../../bin/sh'"),
    "a module that is code": (recipe(imports=("os; import x",)), "'os; import x'"),
    "a time before 1970": (recipe(epoch=-1), "recipe.epoch"),
    "a time after all": (recipe(epoch=10**30), "recipe.epoch"),
    "a project that is none": (recipe(project="a b"), "recipe.project"),
    "a Python that is none": (replace(some_lock(), python="3.11; x"), "python"),
    "a torch that is none": (replace(some_lock(), torch="new"), "torch"),
    "a CUDA that is none": (toolchain(cuda="abc"), "toolchain.cuda: 'abc'"),
    "an nvcc that is none": (toolchain(nvcc=""), "toolchain.nvcc"),
    "a platform that is none": (toolchain(platform="mars"), "toolchain.platform"),
    "a file elsewhere": (pin(filename="../x.whl"), "'../x.whl' is no file's name"),
    "a package elsewhere": (pin(name="../x"), "'../x' is no package's name"),
    "a hidden file": (pin(filename=".x.whl"), "'.x.whl'"),
    "a file that is no wheel": (pin(filename="x.zip"), "'x.zip' is not a wheel's file name"),
    "a file of a very long name": (pin(filename="x" * 300), "too long"),
    "a file of this machine": (pin(url="file:///etc/passwd"), "file:///etc/passwd"),
    "a size below nothing": (pin(size=-5), "-5 bytes"),
    "a digest that is none": (pin(sha256="AB" * 32), "is no sha256"),
    "a role that is none": (pin(role="evil"), "'evil'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told(name: str) -> None:
    lock, words = MISTAKES[name]
    found = list(mistakes_in(lock))
    assert any(words in mistake for mistake in found), found
    assert all(len(mistake) <= 200 for mistake in found)


def test_images_and_compilers_of_windows() -> None:
    plain = some_lock(WINDOWS).toolchain
    assert plain.msvc is not None
    assert plain.containers is not None
    msvc = toolchain(WINDOWS, msvc=replace(plain.msvc, components=("x & del",)))
    assert "x & del" in "".join(mistakes_in(msvc))
    base = replace(plain.containers.bases[0], reference="python\nRUN evil")
    image = toolchain(WINDOWS, containers=replace(plain.containers, bases=(base,)))
    assert "toolchain.containers" in "".join(mistakes_in(image))


def test_names_and_digests() -> None:
    assert list(name_mistakes("nvidia_cuda-13.0+cu1.whl")) == []
    assert list(digest_mistakes("it", "0" * 64)) == []
    for name in ("", "..", "a/b", "a\\b", "a\0", ".hidden", "x" * 1000):
        assert list(name_mistakes(name)), repr(name)
    for text in ("", "0" * 63, "g" * 64, "0" * 65):
        assert list(digest_mistakes("it", text)), text
