"""The recipes and toolchains that ship, and selftest's sources."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fatwheel.arch import parse_arch_list
from fatwheel.config.load import list_recipes, load_recipe
from fatwheel.config.toolchains import list_toolchains

from ...helpers.toolchains import shipped_toolchain

ROOT = Path(__file__).parents[3]
KERNELS = ROOT / "kernels"
TOOLCHAINS = ROOT / "toolchains"
SELFTEST = KERNELS / "selftest"
SHA256 = re.compile("[0-9a-f]{64}")


def test_what_ships() -> None:
    needed = {"causal-conv1d", "flash-attn", "flash-attn-2.8", "gsplat", "selftest"}
    needed |= {"torch-cluster", "torch-scatter", "torch-sparse", "torch-spline-conv"}
    needed |= {"lightgbm", "mamba-ssm", "mmcv", "natten", "xformers"}
    assert needed <= set(list_recipes(KERNELS))
    assert "linux-cuda13.0" in list_toolchains(TOOLCHAINS)


@pytest.mark.parametrize("name", list_recipes(KERNELS))
def test_every_recipe_loads(name: str) -> None:
    recipe = load_recipe(name, KERNELS)
    assert recipe.name == name
    assert SHA256.fullmatch(recipe.digest)
    if recipe.source.package is None:
        assert (recipe.folder / "src" / "setup.py").is_file()
    else:
        assert SHA256.fullmatch(recipe.source.package.sha256)


@pytest.mark.parametrize("name", list_recipes(KERNELS))
def test_every_recipe_holds_no_code(name: str) -> None:
    """Only selftest, whose source is here, has more than data and a check beside its recipe."""
    files = {path.name for path in (KERNELS / name).iterdir()} - {"__pycache__"}
    allowed = {"recipe.toml", "verify.py"} | ({"src"} if name == "selftest" else set())
    assert {file for file in files if not file.startswith("proof")} <= allowed


@pytest.mark.parametrize("name", list_recipes(KERNELS))
def test_every_recipe_has_a_check_for_gpus(name: str) -> None:
    """It compiles, says its tolerances, and knows the ways to end."""
    script = load_recipe(name, KERNELS).verify
    assert script is not None
    code = script.read_text(encoding="utf-8")
    compile(code, str(script), "exec")
    assert "run(cases)" in code or "NO_GPU = 77" in code


# What the files themselves have: facts of the index, not of our files.
SDISTS = {
    "flash-attn": "4fc6c08714ee1c88178946465498677c59448429b43bd6244b222feb23ac9d4c",
    "flash-attn-2.8": "d0f9f0b08a986cdeadbffcf5ec8b3a8f514366c68ad1853d3ab061bc83cc340b",
    "causal-conv1d": "9b7d8ec8d07e3590a1dfa010e4e87d1442635c3f96d665a3c1ce3025d8cc4b84",
    "lightgbm": "f8e20f682c9aabd000bcf4a7ed8aa6f473c1adfecccae34ec24e823d156f4af0",
    "mamba-ssm": "104cc47e9101e5401a675fa2b784f2952b9b037f3b1dd83b5ac544394e95d028",
    "mmcv": "ac479247e808d8802f89eadf04d4118de86bdfe81361ec5aed0cc1bf731c67c9",
    "natten": "8417236b74db079b2d23899ec8f77514fb2dc73d4bbd6b346a45b6967fc05ffb",
    "torch-sparse": "2f14c510a6e93f404c6ea357210615b3c15a71731f9dbd86f25434e34fb5a741",
    "xformers": "f7fc183a58e4bf0e2ae339a18fb1b1d4a37854c0f2545b4f360fef001646ab76",
}


@pytest.mark.parametrize(("name", "sha256"), SDISTS.items())
def test_the_pins_are_those_that_were_measured(name: str, sha256: str) -> None:
    package = load_recipe(name, KERNELS).source.package
    assert package is not None
    assert package.sha256 == sha256


@pytest.mark.parametrize("name", list_toolchains(TOOLCHAINS))
def test_every_toolchain_loads(name: str) -> None:
    toolchain = shipped_toolchain(name)
    assert SHA256.fullmatch(toolchain.digest)
    packages = [*toolchain.packages, *(p for build in toolchain.builds for p in build.packages)]
    # Only what has a URL may wait for `invoke lock`.
    assert all(SHA256.fullmatch(p.sha256) or (p.url and not p.sha256) for p in packages)
    # A file that stands there twice would be a slip of copying.
    assert len({(p.filename, p.sha256) for p in packages}) == len({p.filename for p in packages})


@pytest.mark.parametrize("toolchain", list_toolchains(TOOLCHAINS))
@pytest.mark.parametrize("name", list_recipes(KERNELS))
def test_every_default_arch_can_be_built(name: str, toolchain: str) -> None:
    archs = load_recipe(name, KERNELS).archs
    parse_arch_list(",".join(archs), shipped_toolchain(toolchain).archs)


def test_selftest_compiles_every_unit_and_some_source_twice() -> None:
    setup = (SELFTEST / "src" / "setup.py").read_text()
    named = re.findall(r'"(\w+\.(?:cu|cpp))"', setup)
    there = {path.name for path in (SELFTEST / "src" / "csrc").iterdir() if path.suffix != ".h"}
    assert set(named) == there
    assert named.count("scaled.cu") == 2


def test_selftest_has_flags_that_must_be_dropped() -> None:
    """Archs and threads of its own, as upstream projects have: 75 is in no default list."""
    setup = (SELFTEST / "src" / "setup.py").read_text()
    assert '"-gencode", "arch=compute_75,code=sm_75", "--threads", "2"' in setup
    assert "75" not in load_recipe("selftest", KERNELS).archs


def test_verify_calls_every_function_of_selftest() -> None:
    package = ast.parse((SELFTEST / "src" / "fatwheel_selftest" / "__init__.py").read_text())
    functions = {
        node.name
        for node in package.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    verify = (SELFTEST / "verify.py").read_text()
    assert functions
    assert functions == {name for name in functions if f"selftest.{name}(" in verify}
