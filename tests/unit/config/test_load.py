"""load: every mistake of a file at once, each with its line; the values of a right one.

Lines are counted by hand: the numbers stand beside RECIPE and TOOLCHAIN.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from fatwheel.arch import Arch
from fatwheel.config.load import list_recipes, load_recipe
from fatwheel.config.mistakes import keys_of
from fatwheel.config.pinned import Download, Package, PinnedWheel, Sdist
from fatwheel.config.recipe import Cost, Flags, UnitArchs
from fatwheel.config.schema import (
    CudaTable,
    InterpreterTable,
    MsvcTable,
    RecipeFile,
    SourceTable,
    ToolchainFile,
)
from fatwheel.config.sourcetree import tree_digest
from fatwheel.config.toolchain import Base, Containers, Document, LockedMsvc, TorchBuild, WineImage
from fatwheel.config.toolchains import list_toolchains, load_toolchain
from fatwheel.errors import ConfigError, UsageError

ROOT = Path(__file__).parents[3]
SHA = "0123456789abcdef" * 4

RECIPE = f"""\
project = "demo_ext"
version = "1.2.0"
archs = ["80", "90a", "120+ptx"]
imports = ["demo_ext", "demo_ext.ops"]
memory = "1.5GiB"
seconds = 30
epoch = 2024-05-06

[source]
sdist = "demo_ext-1.2.0.tar.gz"
size = 1234
sha256 = "{SHA}"

[environment]
DEMO_FORCE_BUILD = "TRUE"

[[cost]]
units = "*_bwd"
memory = "2GB"

[[cost]]
units = "*_fwd"
seconds = 7.5
"""  # lines: 1 project … 7 epoch, 9 [source] … 12, 14 [environment], 17 [[cost]], 21 [[cost]] … 23

TOOLCHAIN = f"""\
name = "demo"
platform = "linux-x86_64"
cuda = "13.0"
nvcc = "13.0.88"
archs = ["80", "90", "90a"]
gcc = [9, 15]

[[packages]]
name = "ninja"
version = "1.13.2"
file = "ninja-1.13.2-py3-none-any.whl"
size = 5
sha256 = "{SHA}"
role = "build"

[[builds]]
python = "3.11"
torch = "2.11.0"

[[builds.packages]]
name = "torch"
version = "2.11.0"
file = "torch-2.11.0-cp311-cp311-linux_x86_64.whl"
size = 6
sha256 = "{SHA}"
role = "runtime"
"""  # lines: 8 [[packages]], 16 [[builds]], 20 [[builds.packages]], 21 name … 26 role


def changed(text: str, line: int, new: str) -> str:
    """The text with one line (counted from 1) replaced; '' deletes nothing but its content."""
    lines = text.splitlines()
    lines[line - 1] = new
    return "\n".join(lines) + "\n"


def recipe_at(folder: Path, text: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "recipe.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def mistakes_of(file: Path) -> list[str]:
    """The details of the ConfigError that loading a recipe raises, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(file, file.parent)
    return without_file(caught.value, file)


def without_file(error: ConfigError, file: Path) -> list[str]:
    prefix = f"{file}:"
    assert all(detail.startswith(prefix) for detail in error.details), error.details
    return [detail.removeprefix(prefix) for detail in error.details]


def test_a_right_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(recipe_at(tmp_path / "demo", RECIPE), tmp_path)
    assert recipe.name == "demo"
    assert (recipe.project, recipe.version) == ("demo_ext", "1.2.0")
    assert recipe.source_folder is None
    assert recipe.source.package == Sdist(
        "demo_ext", "1.2.0", "demo_ext-1.2.0.tar.gz", 1234, SHA, "source"
    )
    assert recipe.archs == ("80", "90a", "120+ptx")
    assert recipe.imports == ("demo_ext", "demo_ext.ops")
    assert recipe.environment == {"DEMO_FORCE_BUILD": "TRUE"}
    assert (recipe.memory, recipe.seconds) == (1536 * 2**20, 30.0)
    assert recipe.costs == (
        Cost("*_bwd", 2_000_000_000, 30.0),
        Cost("*_fwd", 1536 * 2**20, 7.5),
    )
    assert recipe.epoch == 1714953600  # date -u -d 2024-05-06 +%s
    assert recipe.folder == tmp_path / "demo"
    assert (recipe.subdirectory, recipe.stub_commands) == ("", ())
    assert (recipe.runtime, recipe.verify) == ((), None)


def test_what_may_be_left_out_has_the_documented_default(tmp_path: Path) -> None:
    text = "\n".join(RECIPE.splitlines()[:4] + RECIPE.splitlines()[7:12])
    recipe = load_recipe(recipe_at(tmp_path, text), tmp_path)
    assert (recipe.memory, recipe.seconds, recipe.costs) == (4 * 2**30, 120.0, ())
    assert recipe.epoch == 315532800  # date -u -d 1980-01-01 +%s
    assert recipe.environment == {}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1700000000", 1700000000),
        ("2023-11-14T22:13:20Z", 1700000000),
        ("2023-11-15 00:13:20+02:00", 1700000000),
        ("2023-11-14", 1699920000),
    ],
)
def test_epochs(tmp_path: Path, written: str, seconds: int) -> None:
    text = changed(RECIPE, 7, f"epoch = {written}")
    assert load_recipe(recipe_at(tmp_path, text), tmp_path).epoch == seconds


MISTAKES = [
    # (line to change, new text, all mistakes expected)
    (1, 'projekt = "demo_ext"', [
        "1: project: missing: the project's name, as its METADATA has it",
        "1: projekt: unknown key; did you mean 'project'?",
    ]),
    (1, 'project = "-demo"', [
        "1: project: '-demo' is not a name; valid: as in flash_attn",
        "10: source.sdist: 'demo_ext-1.2.0.tar.gz' is a file of demo-ext, not of -demo",
    ]),
    (1, 'project = "other"', [
        "10: source.sdist: 'demo_ext-1.2.0.tar.gz' is a file of demo-ext, not of other",
    ]),
    (2, "version = 1.2", [
        "2: version: must be a string, not the number 1.2; put it in quotes",
    ]),
    (2, 'version = "one"', [
        "2: version: 'one' is not a version; valid: as in 2.8.3 or 1.0rc1",
    ]),
    (2, 'version = "1.2.0+cu130"', [
        "2: version: '1.2.0+cu130' has a local label; fatwheel adds its own to the wheel",
        "10: source.sdist: 'demo_ext-1.2.0.tar.gz' is a file of version 1.2.0, not 1.2.0+cu130",
    ]),
    (3, 'archs = "80"', ["3: archs: must be an array, not '80'"]),
    (3, "archs = []", ["3: archs: empty; at least one is needed"]),
    (3, 'archs = ["80", "foo"]', [
        "3: archs[1]: 'foo' is not a GPU architecture; valid: a number as nvcc writes it, "
        "with an optional a or f: 80, 86, 90a, 120f",
    ]),
    (3, 'archs = ["80", "90+sass"]', [
        "3: archs[1]: '90+sass' is not a GPU architecture; valid: 80, 90a, 120f, 80+ptx",
    ]),
    (3, 'archs = ["80", "sm_80+ptx"]', ["3: archs[1]: 'sm_80+ptx' stands there a second time"]),
    (3, 'archs = [\n "80",\n 86,\n]', [
        "5: archs[1]: must be a string, not the number 86; put it in quotes",
    ]),
    (4, 'imports = ["demo-ext"]', [
        "4: imports[0]: 'demo-ext' is not a module; valid: as in torch or flash_attn.ops",
    ]),
    (5, "memory = 6", [
        "5: memory: must be a string with a size; valid: a number and a unit: "
        "6GiB, 1.2GiB, 800MiB, 6GB",
    ]),
    (5, 'memory = "-6GiB"', [
        "5: memory: '-6GiB' is not a size; valid: a number and a unit: 6GiB, 1.2GiB, 800MiB, 6GB",
    ]),
    (5, 'memroy = "6GiB"', ["5: memroy: unknown key; did you mean 'memory'?"]),
    (5, 'colour = "red"', [
        "5: colour: unknown key; valid: archs, build, config_settings, cost, environment, epoch, "
        "flags, imports, memory, pretend, project, requires, runtime, seconds, source, "
        "stub_commands, subdirectory, unit, verify, version",
    ]),
    (6, "seconds = -1", [
        "6: seconds: -1 is not a duration; valid: a number of seconds above 0",
    ]),
    (6, "seconds = inf", [
        "6: seconds: inf is not a duration; valid: a number of seconds above 0",
    ]),
    (6, "seconds = true", ["6: seconds: must be a number, not true"]),
    (7, "epoch = 1979-12-31", [
        "7: epoch: a wheel's times must lie between 1980-01-01 and 2107-12-31",
    ]),
    (7, "epoch = 2024-05-06T00:00:00", [
        "7: epoch: the time has no offset; valid: as in 2023-11-28T02:16:00Z",
    ]),
    (7, 'epoch = "2024"', [
        "7: epoch: must be a date, or seconds since 1970; valid: as in 2023-11-28",
    ]),
    (7, 'stub_commands = ["/bin/git"]', [
        "7: stub_commands[0]: '/bin/git' is not the name of a command; valid: as in git",
    ]),
    (7, 'subdirectory = "../up"', [
        "7: subdirectory: '../up' is not a folder below this one; valid: as in src or a/b",
    ]),
    (10, 'sdist = "demo_ext-1.2.0.whl"', [
        "10: source.sdist: 'demo_ext-1.2.0.whl' is not an sdist's file name; "
        "valid: as in flash_attn-2.3.6.tar.gz",
    ]),
    (10, 'sdist = "demo_ext-1.2.1.tar.gz"', [
        "10: source.sdist: 'demo_ext-1.2.1.tar.gz' is a file of version 1.2.1, not 1.2.0",
    ]),
    (10, "", ["9: source: none of sdist, archive, git, folder, checkout is given"]),
    (11, "", ["9: source.size: missing: the file's size in bytes"]),
    (11, "size = 0", ["11: source.size: 0 is not a size; valid: a number of bytes above 0"]),
    (11, 'size = "1234"', ["11: source.size: must be an integer, not '1234'"]),
    (12, 'sha256 = "beef"', [
        "12: source.sha256: 'beef' is not a sha256; valid: 64 digits 0-9, a-f",
    ]),
    (12, "", ["9: source.sha256: missing: the file's sha256"]),
    (15, "DEMO_FORCE_BUILD = 1", [
        "15: environment.DEMO_FORCE_BUILD: must be a string, not the number 1; put it in quotes",
    ]),
    (15, 'TORCH_CUDA_ARCH_LIST = "8.0"', [
        "15: environment.TORCH_CUDA_ARCH_LIST: fatwheel sets this variable itself; remove it",
    ]),
    (15, 'CUDAARCHS = "80"', [
        "15: environment.CUDAARCHS: fatwheel sets this variable itself; remove it",
    ]),
    (15, 'A = "{archs:torhc}"', [
        "15: environment.A: '{archs:torhc}' is no spelling of the architectures; valid: {archs}, "
        "{archs:number}, {archs:capability}, {archs:cmake}, {archs:sm}, {archs:torch}, each with "
        "a separator if need be, as in {archs:number:,}",
    ]),
    (15, 'A = "{archs:sm:-}"', [
        "15: environment.A: '{archs:sm:-}' is no spelling of the architectures; valid: {archs}, "
        "{archs:number}, {archs:capability}, {archs:cmake}, {archs:sm}, {archs:torch}, each with "
        "a separator if need be, as in {archs:number:,}",
    ]),
    (7, 'pretend = "89"', [
        "7: pretend: '89' is not a compute capability; valid: as in 8.9",
    ]),
    (15, '"A B" = "x"', [
        '15: environment."A B": not the name of an environment variable; '
        "valid: letters, digits, _",
    ]),
    (15, 'A = "nul: \\u0000"', [
        "15: environment.A: an environment variable cannot hold a NUL character",
    ]),
    (20, '[[flags]]\ntorch = ">>2"\nnvcc = ["a", 3, "@file", ""]\nsystem = "macos"', [
        "21: flags[0].torch: '>>2' is no range of versions; valid: as in >=2.13",
        "22: flags[0].nvcc[1]: must be a string, not the number 3; put it in quotes",
        "22: flags[0].nvcc[2]: '@file' is not a word of a command; valid: as in -std=c++20",
        "22: flags[0].nvcc[3]: '' is not a word of a command; valid: as in -std=c++20",
        "23: flags[0].system: must be 'linux' or 'windows', not 'macos'",
    ]),
    (18, "", ["17: cost[0].units: missing: a pattern of unit names, as in '*_bwd_*'"]),
    (23, "secnods = 7", ["23: cost[1].secnods: unknown key; did you mean 'seconds'?"]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "new", "expected"), MISTAKES)
def test_each_mistake(tmp_path: Path, line: int, new: str, expected: list[str]) -> None:
    assert mistakes_of(recipe_at(tmp_path, changed(RECIPE, line, new))) == expected


RUNTIME = f"""\
{RECIPE}
[[runtime]]
name = "einops"
version = "0.8.2"
file = "einops-0.8.2-py3-none-any.whl"
size = 65638
sha256 = "{SHA}"
"""  # lines: 25 [[runtime]], 26 name … 30 sha256


def test_what_the_wheel_imports_besides_torch(tmp_path: Path) -> None:
    recipe = load_recipe(recipe_at(tmp_path, RUNTIME), tmp_path)
    file = "einops-0.8.2-py3-none-any.whl"
    assert recipe.runtime == (Package("einops", "0.8.2", file, 65638, SHA, "runtime"),)


RUNTIME_MISTAKES = [
    (26, 'name = "Demo-Ext"', [
        "26: runtime[0].name: a second package 'Demo-Ext'",
        "28: runtime[0].file: 'einops-0.8.2-py3-none-any.whl' is a file of einops, "
        "not of Demo-Ext",
    ]),
    (28, 'file = "einops-0.8.2.tar.gz"', [
        "28: runtime[0].file: 'einops-0.8.2.tar.gz' is not a wheel's file name",
    ]),
    (28, 'file = "einops-0.8.1-py3-none-any.whl"', [
        "28: runtime[0].file: 'einops-0.8.1-py3-none-any.whl' is a file of version 0.8.1, "
        "not 0.8.2",
    ]),
    (28, "", ["25: runtime[0].file: missing: the wheel's file name, as the index lists it"]),
    (29, "", ["25: runtime[0].size: missing: the wheel's size in bytes"]),
    (30, "", ["25: runtime[0].sha256: missing: the wheel's sha256"]),
    (30, f'sha256 = "{SHA}"\nrole = "runtime"', [
        "31: runtime[0].role: unknown key; valid: file, name, sha256, size, version",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "new", "expected"), RUNTIME_MISTAKES)
def test_each_mistake_of_runtime(tmp_path: Path, line: int, new: str, expected: list[str]) -> None:
    assert mistakes_of(recipe_at(tmp_path, changed(RUNTIME, line, new))) == expected


def test_a_script_beside_the_recipe_checks_it(tmp_path: Path) -> None:
    file = recipe_at(tmp_path / "demo", RECIPE)
    script = tmp_path / "demo" / "verify.py"
    script.write_text("")
    before = load_recipe(file, tmp_path)
    assert before.verify == script
    other = tmp_path / "other" / "check.py"
    other.parent.mkdir()
    other.write_text("")
    file.write_text(f'verify = "../other/check.py"\n{RECIPE}')
    after = load_recipe(file, tmp_path)
    assert after.verify == other
    assert after.digest == before.digest, "what checks a wheel is no part of it"


@pytest.mark.parametrize(
    ("script", "mistake"),
    [
        ("check.py", "'check.py': no such file"),
        ("../../check.py", "'../../check.py' is neither in this folder nor in one beside it"),
        (
            "/check.py",
            "'/check.py' is not a script; valid: as in verify.py or ../flash-attn/verify.py",
        ),
        (
            "verify.sh",
            "'verify.sh' is not a script; valid: as in verify.py or ../flash-attn/verify.py",
        ),
    ],
)
def test_scripts_that_cannot_be(tmp_path: Path, script: str, mistake: str) -> None:
    (tmp_path / "check.py").write_text("")
    file = recipe_at(tmp_path / "kernels" / "demo", f'verify = "{script}"\n{RECIPE}')
    assert f"1: verify: {mistake}" in mistakes_of(file)


def test_an_empty_recipe_names_all_that_is_needed(tmp_path: Path) -> None:
    found = mistakes_of(recipe_at(tmp_path, ""))
    assert [line.split(": ")[:3] for line in found] == [
        ["1", key, "missing"] for key in ("archs", "imports", "project", "source", "version")
    ]


def test_many_mistakes_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = changed(RECIPE, 3, 'archs = ["8O"]')
    text = changed(text, 5, "memory = [1]")
    text = changed(text, 12, 'sha265 = "x"')
    text = changed(text, 18, "units = 3")
    file = recipe_at(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(file, tmp_path)
    found = without_file(caught.value, file)
    assert [line.split(": ")[:2] for line in found] == [
        ["3", "archs[0]"],
        ["5", "memory"],
        ["9", "source.sha256"],
        ["12", "source.sha265"],
        ["18", "cost[0].units"],
    ]
    assert caught.value.what == "5 mistakes"
    assert caught.value.exit_code == 3
    assert "docs/recipes.md" in str(caught.value)


def test_lines_below_inline_tables_dotted_keys_and_long_strings(tmp_path: Path) -> None:
    text = f'''\
# a comment = with an equals sign
version = """\\
  1.2.0"""
project = "demo_ext" # [not.a.table]
archs = [ # one
  "80", # ]
  "x86",
]
imports = ["demo_ext"]
source.sdist = 'demo_ext-1.2.0.tar.gz'
source."size" = 0
source.sha256 = "{SHA}"
environment = {{ GOOD = "}}#", PATH = "x" }}
cost = [
  {{ units = "a" }},
  {{ units = "b", memory = "lots" }},
]
'''
    found = mistakes_of(recipe_at(tmp_path, text))
    # Lines: 2-3 version, 4 project, 5 archs, 7 "x86", 9 imports, 11 size, 13 PATH, 16 lots.
    assert [line.split(": ")[:2] for line in found] == [
        ["7", "archs[1]"],
        ["11", "source.size"],
        ["13", "environment.PATH"],
        ["16", "cost[1].memory"],
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ('project = "a"\nversion\n', "2:8: not TOML:"),
        ('project = "a\n', "1:13: not TOML:"),
        ("a = 1\r\na = 2\r\n", "2:6: not TOML:"),
        ('a = "unfinished', "1: not TOML:"),
        ("a = 1\nb = 2024-02-30\n", "2:"),
        (b'a = "\xe9"\n', "1: not UTF-8: byte 0xe9"),
        (b'a = 1\nb = "\xff\xfe"\n', "2: not UTF-8: byte 0xff"),
    ],
)
def test_what_is_no_toml(tmp_path: Path, text: str | bytes, start: str) -> None:
    [found] = mistakes_of(recipe_at(tmp_path, text))
    assert found.startswith(start)


def test_deep_nesting_is_a_mistake_not_a_crash(tmp_path: Path) -> None:
    for depth in (200, 400, 450, 480, 500, 100_000):
        file = recipe_at(tmp_path, "a = " + "[" * depth + "]" * depth)
        with pytest.raises(ConfigError):
            load_recipe(file, tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = recipe_at(tmp_path, b"\xef\xbb\xbf" + RECIPE.encode())
    assert load_recipe(file, tmp_path).project == "demo_ext"


def test_a_folder_in_the_file_s_place(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").mkdir()
    with pytest.raises(ConfigError, match=r"demo\.toml: cannot be read"):
        load_toolchain("demo", tmp_path)


TWO_SOURCES = "beside sdist; a source is one of sdist, archive, git, folder, checkout"

FOLDER = """\
project = "demo"
version = "1"
archs = ["80"]
imports = ["demo"]
source = { folder = "src" }
"""


def folder_recipe(folder: Path) -> Path:
    file = recipe_at(folder, FOLDER)
    (folder / "src").mkdir()
    (folder / "src" / "setup.py").write_text("# build\n")
    return file


def test_a_source_folder(tmp_path: Path) -> None:
    recipe = load_recipe(folder_recipe(tmp_path / "demo"), tmp_path)
    assert recipe.source.package is None
    assert recipe.source_folder == tmp_path / "demo" / "src"


def test_source_folder_mistakes(tmp_path: Path) -> None:
    file = folder_recipe(tmp_path)
    file.write_text(FOLDER.replace('"src"', f'"source", size = 3, sha256 = "{SHA}"'))
    assert mistakes_of(file) == [
        "5: source.folder: 'source': no such folder beside this file",
        "5: source.sha256: belongs to sdist or archive; folder has none",
        "5: source.size: belongs to sdist or archive; folder has none",
    ]
    file.write_text(FOLDER.replace('"src"', '"src", sdist = "demo-1.tar.gz"'))
    assert mistakes_of(file) == [f"5: source.folder: {TWO_SOURCES}"]


URL = "https://example.org/demo.git"
COMMIT, TREE = "12" * 20, "ab" * 20
GIT = f"""\
git = "{URL}"
commit = "{COMMIT}"
tree = "{TREE}"
"""


def with_source(text: str) -> str:
    return FOLDER.partition("source =")[0] + "[source]\n" + text


def test_a_git_source(tmp_path: Path) -> None:
    text = (
        GIT
        + f"""
[[source.submodules]]
path = "third/a"
url = "{URL}"
commit = "{TREE}"
tree = "{COMMIT}"
"""
    )
    (tmp_path / "x.patch").write_text("1")
    plain = load_recipe(recipe_at(tmp_path, with_source(GIT)), tmp_path)
    recipe = load_recipe(recipe_at(tmp_path, with_source(text)), tmp_path)
    git = recipe.source.git
    assert git is not None
    assert (git.url, git.commit, git.tree) == (URL, COMMIT, TREE)
    assert [one.path for one in git.submodules] == ["third/a"]
    assert recipe.source.sha256 != plain.source.sha256
    assert recipe.urls == (URL, URL)
    patched = 'patches = ["x.patch"]\n' + GIT
    one = load_recipe(recipe_at(tmp_path, with_source(patched)), tmp_path)
    (tmp_path / "x.patch").write_text("2")
    two = load_recipe(recipe_at(tmp_path, with_source(patched)), tmp_path)
    assert one.source.sha256 == two.source.sha256 == plain.source.sha256
    assert [found.source.patches[0].sha256 for found in (one, two)] == [
        hashlib.sha256(text).hexdigest() for text in (b"1", b"2")
    ]
    assert len({plain.digest, one.digest, two.digest}) == 3


def test_an_archive_is_a_source(tmp_path: Path) -> None:
    url = "https://example.org/a/v1.0.tar.gz"
    text = with_source(f'archive = "{url}"\nsize = 5\nsha256 = "{SHA}"\n')
    source = load_recipe(recipe_at(tmp_path, text), tmp_path).source
    assert source.archive is not None
    assert (source.archive.filename, source.sha256) == ("v1.0.tar.gz", SHA)
    assert source.file == source.archive


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GIT.replace(COMMIT, "main"), "source.commit: 'main' is not a full id of git's"),
        (GIT.replace(COMMIT, COMMIT[:12]), "source.commit: '121212121212' is not a full id"),
        (GIT.replace("tree", "#"), "source.tree: missing: the id of the commit's tree"),
        (GIT.replace("https", "file"), "source.git: must begin with https://"),
        (GIT.replace("https", "ext"), "source.git: must begin with https://"),
        (GIT.replace("https", "http"), "source.git: must begin with https://"),
        (GIT.replace("https://", "git@"), "source.git: must begin with https://"),
        (GIT.replace("https://", "https://me:pw@"), "source.git: must not contain a user"),
        (GIT + f'sha256 = "{SHA}"', "source.sha256: belongs to sdist or archive; git has none"),
        (GIT + 'patches = ["../x.patch"]', "source.patches[0]: '../x.patch' is not a folder below"),
        (GIT + 'patches = ["x.txt"]', "source.patches[0]: 'x.txt' is not a patch"),
        (GIT + 'patches = ["x.patch"]', "source.patches[0]: 'x.patch': no such file beside"),
        (GIT + "patches = []", "source.patches: empty"),
        (GIT + f'submodules = [{{ path = "../x", url = "{URL}", commit = "{COMMIT}", '
         f'tree = "{TREE}" }}]', "source.submodules[0].path: '../x' is not a folder below"),
        (GIT + f'submodules = [{{ path = "x", url = "ext::sh -c id", commit = "{COMMIT}", '
         f'tree = "{TREE}" }}]', "source.submodules[0].url: must begin with https://"),
        (GIT + 'submodules = [{ path = "x" }]', "source.submodules[0].commit: missing: the commit"),
        ('checkout = "nowhere"', "source.checkout: 'nowhere': no such folder"),
        ('archive = "https://example.org/a.zip"', "source.archive: 'https://example.org/a.zip' is"),
    ],
)  # fmt: skip
def test_mistakes_of_sources(tmp_path: Path, text: str, says: str) -> None:
    file = recipe_at(tmp_path, with_source(text))
    assert any(says in line for line in mistakes_of(file)), mistakes_of(file)


def test_a_link_in_the_source_folder_is_refused(tmp_path: Path) -> None:
    file = folder_recipe(tmp_path)
    (tmp_path / "src" / "link").symlink_to("setup.py")
    with pytest.raises(ConfigError, match="no links"):
        load_recipe(file, tmp_path)


def test_the_digest_follows_the_meaning_alone(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        return load_recipe(recipe_at(tmp_path / "demo", text), tmp_path).digest

    same = [
        RECIPE + "# a comment\n",
        RECIPE.replace('"1.5GiB"', '"1536 MiB"'),
        RECIPE.replace("2024-05-06", "1714953600"),
        RECIPE.replace("seconds = 30\n", "seconds = 30.0\n"),
        "source.sdist = 'demo_ext-1.2.0.tar.gz'\n"
        + RECIPE.replace('sdist = "demo_ext-1.2.0.tar.gz"\n', "").replace("[source]\n", "")
        .replace("size =", "source.size =").replace("sha256 =", "source.sha256 ="),
    ]  # fmt: skip
    for text in same:
        assert digest(text) == digest(RECIPE), f"another digest for:\n{text}"
    other = [
        RECIPE.replace("1234", "1235"),
        RECIPE.replace('"TRUE"', '"FALSE"'),
        RECIPE.replace("30", "31"),
        RECIPE.replace("[environment]", "[environment]\nMORE = '1'"),
    ]
    digests = {digest(text) for text in [RECIPE, *other]}
    assert len(digests) == len(other) + 1
    assert all(re.fullmatch("[0-9a-f]{64}", found) for found in digests)


def test_the_digest_covers_a_source_folder(tmp_path: Path) -> None:
    file = folder_recipe(tmp_path)
    source = tmp_path / "src"

    def digest() -> str:
        return load_recipe(file, tmp_path).digest

    first = digest()
    for leftover in ("build/x.o", "__pycache__/x.pyc", "a/__pycache__/x.pyc", "demo.egg-info/P"):
        (source / leftover).parent.mkdir(parents=True)
        (source / leftover).write_text("x")
    assert digest() == first, "what a build leaves behind must not count"
    (source / "setup.py").write_text("# other build\n")
    second = digest()
    assert second != first
    (source / "setup.py").rename(source / "set_up.py")
    assert digest() not in (first, second)


def test_finding_recipes(tmp_path: Path) -> None:
    for name in ("flash-attn", "causal-conv1d"):
        recipe_at(tmp_path / name, RECIPE)
    (tmp_path / "notes").mkdir()
    assert list_recipes(tmp_path) == ("causal-conv1d", "flash-attn")
    by_name = load_recipe("flash-attn", tmp_path)
    assert by_name == load_recipe(tmp_path / "flash-attn", tmp_path)
    assert by_name == load_recipe(str(tmp_path / "flash-attn" / "recipe.toml"), tmp_path)


@pytest.mark.parametrize("name", ["flash-atn", "", ".", "..", "flash-attn\0", "notes"])
def test_an_unknown_kernel(tmp_path: Path, name: str) -> None:
    for known in ("flash-attn", "causal-conv1d"):
        recipe_at(tmp_path / known, RECIPE)
    (tmp_path / "notes").mkdir()
    with pytest.raises(UsageError) as caught:
        load_recipe(name, tmp_path)
    assert f"unknown kernel {name!r}" in str(caught.value)
    assert "kernels here: causal-conv1d, flash-attn" in str(caught.value)
    assert ("did you mean 'flash-attn'?" in str(caught.value)) == name.startswith("flash")


def test_no_such_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such recipe"):
        load_recipe(f"{tmp_path}/nothing", tmp_path)
    with pytest.raises(UsageError, match="none found in"):
        load_recipe("flash-attn", tmp_path / "nothing")


def test_a_right_toolchain(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(TOOLCHAIN)
    toolchain = load_toolchain("demo", tmp_path)
    assert list_toolchains(tmp_path) == ("demo",)
    assert (toolchain.name, toolchain.platform) == ("demo", "linux-x86_64")
    assert (toolchain.cuda, toolchain.nvcc, toolchain.gcc) == ("13.0", "13.0.88", (9, 15))
    assert toolchain.archs == (Arch(80), Arch(90), Arch(90, "a"))
    assert toolchain.packages == (
        Package("ninja", "1.13.2", "ninja-1.13.2-py3-none-any.whl", 5, SHA, "build"),
    )
    assert (toolchain.pythons, toolchain.torches) == (("3.11",), ("2.11.0",))
    assert toolchain.builds[0].packages == (
        Package(
            "torch", "2.11.0", "torch-2.11.0-cp311-cp311-linux_x86_64.whl", 6, SHA, "runtime"
        ),
    )  # fmt: skip


BUILD = "".join(TOOLCHAIN.splitlines(keepends=True)[15:])

TOOLCHAIN_MISTAKES = [
    (1, 'name = "demon"', ["1: name: 'demon' is not the file's name, 'demo'"]),
    (2, 'platform = "beos"', ["2: platform: 'beos' is not a platform; valid: as in linux-x86_64"]),
    (3, "cuda = 13.0", ["3: cuda: must be a string, not the number 13.0; put it in quotes"]),
    (5, 'archs = ["80", "80"]', ["5: archs[1]: '80' stands there a second time"]),
    (6, "gcc = [15, 9]", [
        "6: gcc: [15, 9] is not a range; valid: oldest and newest, as in [9, 15]",
    ]),
    (6, "gcc = [9]", ["6: gcc: [9] is not a range; valid: oldest and newest, as in [9, 15]"]),
    (11, 'file = "ninja.zip"', ["11: packages[0].file: 'ninja.zip' is not a wheel's file name"]),
    (11, 'file = "ninja-1.13-py3-none-any.whl"', [
        "11: packages[0].file: 'ninja-1.13-py3-none-any.whl' is a file of version 1.13, not 1.13.2",
    ]),
    (14, 'role = "runtim"', [
        "14: packages[0].role: must be 'compiler', 'build', 'runtime' or 'installer', "
        "not 'runtim'",
    ]),
    (17, 'python = "cp311"', ["17: builds[0].python: 'cp311' is not a Python; valid: as in 3.11"]),
    (18, 'torch = "2.1"', ["16: builds[0]: its packages do not include torch 2.1"]),
    (21, 'name = "Ninja"', [
        "16: builds[0]: its packages do not include torch 2.11.0",
        "21: builds[0].packages[0].name: a second package 'Ninja'",
        "23: builds[0].packages[0].file: 'torch-2.11.0-cp311-cp311-linux_x86_64.whl' "
        "is a file of torch, not of Ninja",
    ]),
    (25, 'sha = "x"', [
        "20: builds[0].packages[0].sha256: missing: the wheel's sha256",
        "25: builds[0].packages[0].sha: unknown key; did you mean 'sha256'?",
    ]),
    (26, f'role = "runtime"\n{BUILD}', [
        "27: builds[1]: a second build for Python 3.11 and torch 2.11.0",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "new", "expected"), TOOLCHAIN_MISTAKES)
def test_each_toolchain_mistake(tmp_path: Path, line: int, new: str, expected: list[str]) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(changed(TOOLCHAIN, line, new))
    with pytest.raises(ConfigError) as caught:
        load_toolchain("demo", tmp_path)
    assert without_file(caught.value, file) == expected


HEADERS = "Microsoft.VC.14.38.17.8.CRT.Headers.base"
STORE = "Microsoft.VC.14.38.17.8.CRT.x64.Store.base"
PAYLOAD = f"https://host/pr/guid/{SHA}/{HEADERS}.vsix"
IMAGES = f"""\
name = "demo"
platform = "win-amd64"
cuda = "12.3"
nvcc = "12.3.107"
archs = ["80"]
default_torch = "2.1.1"
cuda_manifest = "https://host/redist/redistrib_12.3.2.json"

[msvc]
visual_studio = "17.8.2"
cl = "19.38.33130"
toolset = "14.38"
license = "https://host/terms"
channel = {{ url = "https://host/a.chman", sha256 = "{SHA}" }}
catalogue = {{ url = "https://host/a.vsman", sha256 = "{SHA}" }}
payloads = [
  {{ name = "Microsoft.VC.14.38.17.8.CRT.Headers.base", url = "{PAYLOAD}", sha256 = "{SHA}" }},
  {{ name = "Microsoft.VC.14.38.17.8.CRT.x64.Store.base" }}]

[containers]
os = "windows"
os_build = 20348

[[containers.bases]]
reference = "mcr.microsoft.com/windows/servercore:ltsc2022"
digest = "sha256:{SHA}"

[[cuda_files]]
name = "cuda_nvcc"
version = "12.3.107"
url = "https://host/redist/cuda_nvcc/cuda_nvcc-12.3.107-archive.zip"
size = 7
sha256 = "{SHA}"

[[interpreters]]
python = "3.11"
version = "3.11.9"
url = "https://host/python-3.11.9-amd64.exe"

[[packages]]
name = "pip"
version = "25.3"
file = "pip-25.3-py3-none-any.whl"
size = 5
sha256 = "{SHA}"
role = "installer"

[[builds]]
python = "3.11"
torch = "2.1.1"

[[builds.packages]]
name = "torch"
version = "2.1.1+cu121"
file = "torch-2.1.1+cu121-cp311-cp311-win_amd64.whl"
url = "https://host/whl/torch-2.1.1%2Bcu121-cp311-cp311-win_amd64.whl"
role = "runtime"
"""  # lines: 9 [msvc], 16 payloads, 20 [containers], 24 [[containers.bases]],
#       28 [[cuda_files]], 35 [[interpreters]], 40 [[packages]], 48 [[builds]], 52 packages … 57


def test_a_right_toolchain_for_containers(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(IMAGES)
    toolchain = load_toolchain("demo", tmp_path)
    assert (toolchain.gcc, toolchain.default_torch) == (None, "2.1.1")
    assert toolchain.msvc == LockedMsvc(
        "17.8.2",
        "19.38.33130",
        "14.38",
        "https://host/terms",
        (
            Download(HEADERS, "", PAYLOAD, f"{HEADERS}.vsix", 0, SHA),
            Download(STORE, "", "", f"{STORE}.vsix", 0, ""),
        ),
        Document("https://host/a.chman", SHA),
        Document("https://host/a.vsman", SHA),
    )
    assert [one.locked for one in toolchain.msvc.payloads] == [True, False]
    assert toolchain.containers == Containers(
        "windows",
        20348,
        (Base("mcr.microsoft.com/windows/servercore:ltsc2022", f"sha256:{SHA}", ()),),
    )
    [nvcc] = toolchain.cuda_files
    assert nvcc == Download(
        "cuda_nvcc",
        "12.3.107",
        "https://host/redist/cuda_nvcc/cuda_nvcc-12.3.107-archive.zip",
        "cuda_nvcc-12.3.107-archive.zip",
        7,
        SHA,
    )
    assert nvcc.locked
    [python] = toolchain.interpreters
    assert (python.python, python.download.filename) == ("3.11", "python-3.11.9-amd64.exe")
    assert not python.download.locked
    [torch] = toolchain.builds[0].packages
    assert (torch.version, torch.size, torch.sha256) == ("2.1.1+cu121", 0, "")
    assert torch.url == "https://host/whl/torch-2.1.1%2Bcu121-cp311-cp311-win_amd64.whl"
    assert toolchain.cuda_manifest == "https://host/redist/redistrib_12.3.2.json"
    assert toolchain.brings_all


def test_a_value_that_is_filled_in_changes_the_digest(tmp_path: Path) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(IMAGES)
    before = load_toolchain("demo", tmp_path).digest
    file.write_text("# a comment\n" + IMAGES)
    assert load_toolchain("demo", tmp_path).digest == before
    file.write_text(
        changed(IMAGES, 38, f'url = "https://host/python-3.11.9-amd64.exe"\nsha256 = "{SHA}"')
    )
    assert load_toolchain("demo", tmp_path).digest != before


NO_PYTHON = "no image has Python 3.11: it is neither in interpreters nor in the pythons of a base"
IMAGE_MISTAKES = [
    (2, 'platform = "linux-x86_64"', [
        "1: gcc: missing: the C++ compiler for linux-x86_64",
        "9: msvc: is not a compiler for linux-x86_64",
        "21: containers.os: 'windows' does not make wheels for linux-x86_64",
    ]),
    (4, 'nvcc = "12.3.52"', ["30: cuda_files[0].version: '12.3.107' is not nvcc's, '12.3.52'"]),
    (5, 'archs = ["80"]\ngcc = [9, 12]', ["6: gcc: is not a compiler for win-amd64"]),
    (6, 'default_torch = "2.2.2"', [
        "6: default_torch: no build has torch 2.2.2; valid: 2.1.1",
    ]),
    (7, 'cuda_manifest = "http://host/a.json"', [
        "7: cuda_manifest: must begin with https://",
    ]),
    (11, 'cl = "MSVC"', ["11: msvc.cl: 'MSVC' is not a version; valid: as in 13.0"]),
    (12, 'toolset = "v143"', [
        "12: msvc.toolset: 'v143' is not a toolset of MSVC; valid: as in 14.38",
    ]),
    (13, 'license = "MIT"', ["13: msvc.license: must begin with https://"]),
    (15, "catalog = {}", [
        "9: msvc.catalogue: missing: a table: url, sha256",
        "15: msvc.catalog: unknown key; did you mean 'catalogue'?",
    ]),
    (17, f'{{ name = "A", url = "{PAYLOAD}", sha256 = "{SHA[::-1]}" }},', [
        f"17: msvc.payloads[0].sha256: the URL says {SHA}",
    ]),
    (17, f'{{ name = "{STORE.upper()}", url = "https://host/setup.exe" }},', [
        "17: msvc.payloads[0].url: must end with one of .vsix, .nupkg, .msi, .cab",
        f"18: msvc.payloads[1].name: a second package {STORE!r}",
    ]),
    (20, "[container]", [
        "20: container: unknown key; did you mean 'containers'?",
        "24: containers.os: missing: 'linux' or 'windows'",
    ]),
    (21, 'os = "beos"', ["21: containers.os: must be 'linux' or 'windows', not 'beos'"]),
    (22, "", ["20: containers.os_build: missing: the Windows build of the base, as in 20348"]),
    (22, "os_build = 0", ["22: containers.os_build: 0 is not a Windows build"]),
    (25, 'reference = "Python:3.11"', [
        "25: containers.bases[0].reference: 'Python:3.11' is not an image; "
        "valid: as in python:3.11-bookworm, without a digest",
    ]),
    (26, 'digest = "latest"', [
        "26: containers.bases[0].digest: 'latest' is not a digest; "
        "valid: sha256: and 64 digits 0-9, a-f",
    ]),
    (26, 'pythons = ["3.10"]', [f"49: builds[0].python: {NO_PYTHON}"]),
    (26, '[[containers.bases]]\nreference = "other"', [
        "26: containers.bases[1]: a second image for the interpreters",
    ]),
    (30, 'version = "12.3.52"', [
        "30: cuda_files[0].version: '12.3.52' is not in the file's name, "
        "'cuda_nvcc-12.3.107-archive.zip'",
        "30: cuda_files[0].version: '12.3.52' is not nvcc's, '12.3.107'",
    ]),
    (31, "", ["28: cuda_files[0].url: missing: where the file is"]),
    (31, 'url = "https://host/redist/"', [
        "30: cuda_files[0].version: '12.3.107' is not in the file's name, ''",
        "31: cuda_files[0].url: 'https://host/redist/' is not the URL of a file; "
        "valid: as in https://host/a/file.zip",
    ]),
    (31, 'url = "https://me:secret@host/a-12.3.107.zip"', [
        "31: cuda_files[0].url: must not contain a user, a password, ? or #",
    ]),
    (31, 'url = "https://host/a-12.3.107.zip?x=1"', [
        "31: cuda_files[0].url: must not contain a user, a password, ? or #",
    ]),
    (33, 'sha = "x"', ["33: cuda_files[0].sha: unknown key; did you mean 'sha256'?"]),
    (36, 'python = "3.10"', [
        "37: interpreters[0].version: '3.11.9' is not a Python 3.10",
        f"49: builds[0].python: {NO_PYTHON}",
    ]),
    (38, 'url = "https://host/cuda_nvcc-12.3.107-archive.zip"', [
        "37: interpreters[0].version: '3.11.9' is not in the file's name, "
        "'cuda_nvcc-12.3.107-archive.zip'",
        "38: interpreters[0].url: a second file 'cuda_nvcc-12.3.107-archive.zip'",
    ]),
    (44, "", ["40: packages[0].size: missing: the wheel's size in bytes"]),
    (54, 'version = "2.1.1+cu118"', [
        "55: builds[0].packages[0].file: 'torch-2.1.1+cu121-cp311-cp311-win_amd64.whl' "
        "is a file of version 2.1.1+cu121, not 2.1.1+cu118",
    ]),
    (56, 'url = "https://host/torch.whl"', [
        "56: builds[0].packages[0].url: is the URL of another file than "
        "torch-2.1.1+cu121-cp311-cp311-win_amd64.whl",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "new", "expected"), IMAGE_MISTAKES)
def test_each_mistake_of_a_toolchain_for_containers(
    tmp_path: Path, line: int, new: str, expected: list[str]
) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(changed(IMAGES, line, new))
    with pytest.raises(ConfigError) as caught:
        load_toolchain("demo", tmp_path)
    assert without_file(caught.value, file) == expected


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000"])
def test_this_machine_may_serve_without_encryption(tmp_path: Path, host: str) -> None:
    (tmp_path / "demo.toml").write_text(IMAGES.replace("https://host/", f"http://{host}/"))
    assert load_toolchain("demo", tmp_path).cuda_files[0].url.startswith(f"http://{host}/")


def test_several_torches_need_a_default(tmp_path: Path) -> None:
    second = IMAGES[IMAGES.index("[[builds]]") :].replace("2.1.1", "2.1.2")
    (tmp_path / "demo.toml").write_text(changed(IMAGES + second, 6, ""))
    with pytest.raises(ConfigError, match="default_torch: missing: the torch to build against"):
        load_toolchain("demo", tmp_path)


def test_what_only_images_can_hold_needs_images(tmp_path: Path) -> None:
    lines = IMAGES.splitlines()
    file = tmp_path / "demo.toml"
    file.write_text("\n".join(lines[:19] + lines[27:]))
    with pytest.raises(ConfigError) as caught:
        load_toolchain("demo", tmp_path)
    assert without_file(caught.value, file) == [
        "1: containers: missing: interpreters can only be used in images"
    ]


def test_a_base_may_bring_its_python(tmp_path: Path) -> None:
    file = tmp_path / "demo.toml"
    containers = """
[containers]
os = "linux"
[[containers.bases]]
reference = "python:3.11-bookworm"
pythons = ["3.11"]
"""
    file.write_text(TOOLCHAIN + containers)
    toolchain = load_toolchain("demo", tmp_path)
    assert toolchain.containers is not None
    assert toolchain.containers.bases == (Base("python:3.11-bookworm", "", ("3.11",)),)
    assert not toolchain.brings_all
    file.write_text(TOOLCHAIN + containers + '[[containers.bases]]\nreference = "a"\n'
                    'pythons = ["3.11"]\n')  # fmt: skip
    with pytest.raises(ConfigError, match=r"a second image for Python 3\.11"):
        load_toolchain("demo", tmp_path)
    file.write_text(TOOLCHAIN + containers.replace('["3.11"]', '["3.12"]'))
    with pytest.raises(ConfigError, match=r"no image has Python 3\.11"):
        load_toolchain("demo", tmp_path)


def test_an_unknown_toolchain(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(TOOLCHAIN)
    with pytest.raises(UsageError, match=r"did you mean 'demo'\? \(toolchains here: demo\)"):
        load_toolchain("dem", tmp_path)


DOCS = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_the_docs_explain_exactly_the_keys_that_there_are() -> None:
    explained = re.findall(r"^\| `([\w.]+)` \|", DOCS, re.MULTILINE)
    tables = {"source", "environment", "cost", "runtime", "build", "unit", "config_settings"}
    keys = set(keys_of(RecipeFile)) - tables - {"flags"}
    keys |= {f"flags.{key}" for key in keys_of(Flags)}
    keys |= {f"unit.{key}" for key in keys_of(UnitArchs)}
    keys |= {f"source.{key}" for key in keys_of(SourceTable)}
    keys |= {f"cost.{key}" for key in keys_of(Cost)}
    keys |= {f"{table}.{key}" for key in keys_of(PinnedWheel) for table in ("runtime", "build")}
    assert sorted(explained) == sorted(keys | {"environment.NAME", "config_settings.NAME"})


def test_the_docs_explain_exactly_the_keys_of_a_toolchain() -> None:
    text = (ROOT / "docs" / "toolchains.md").read_text(encoding="utf-8")
    section = text.partition("## The file")[2].partition("## Parts")[0]
    explained = re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)
    tables = {
        "": ToolchainFile,
        "msvc.": MsvcTable,
        "containers.": Containers,
        "containers.bases.": Base,
        "wine.": WineImage,
        "packages.": Package,
        "builds.": TorchBuild,
    }
    keys = [f"{start}{key}" for start, table in tables.items() for key in keys_of(table)]
    assert sorted(explained) == sorted(keys)
    for table in (CudaTable, InterpreterTable):
        [line] = [line for line in text.splitlines() if line.startswith(f"| `{_PLACES[table]}` |")]
        assert set(keys_of(table)) <= set(re.findall(r"`(\w+)`", line))


_PLACES = {CudaTable: "cuda_files", InterpreterTable: "interpreters"}


def test_the_recipes_in_the_docs_load(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    blocks = re.findall(r"^ *```toml\n(.*?)^ *```", DOCS, re.MULTILINE | re.DOTALL)
    start = FOLDER.partition("source =")[0]
    for name in ("archs-from-environment.patch", "no-isa.patch"):
        (tmp_path / name).touch()
    assert len(blocks) == 7, (
        "a whole recipe with an sdist and one with a folder; three [source], two [[unit]]"
    )
    for block in blocks:
        around = FOLDER if block.startswith("[[unit]]") else start
        whole = block if "project =" in block else f"{around}\n{block}"
        load_recipe(recipe_at(tmp_path, whole), tmp_path)


def test_the_errors_in_the_docs_are_those_that_come() -> None:
    """Each message that the docs' table of errors explains is one that load can say."""
    shown = re.findall(r"^\| `[a-z_.\[\]0-9]+: ([^`]+)` \|", DOCS, re.MULTILINE)
    known = [line.split(": ", 2)[2] for *_, expected in MISTAKES for line in expected]
    known.append(TWO_SOURCES)
    assert shown
    assert [message for message in shown if message not in known] == []


def test_the_source_digest_can_be_made_by_hand(tmp_path: Path) -> None:
    """tree_digest as its docstring has it, computed here from the files."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"1")
    (tmp_path / "a").write_bytes(b"2")
    content = hashlib.sha256(b"2").digest() + b"a\0" + hashlib.sha256(b"1").digest() + b"b/x\0"
    assert tree_digest(tmp_path) == hashlib.sha256(content).hexdigest()


# -- files that would take long, or much memory ----------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "9" * 5000, "1: a number has too many digits"),
        ("\na = 0x" + "f" * 16, "2: an integer has more than 64 bits"),
        ("a = [1, {b = -0x8000000000000001}]".replace("-0x", "0x"), "1: an integer has more than"),
        ("a = " + "[" * 9_000 + "]" * 9_000, "1: nested too deeply"),
        ("a" + ".a" * 900 + " = 1", "1: nested too deeply"),
        ("a" + ".a" * 15_000 + " = 1", "1: a key with too many parts"),
        ("\na = '" + "a" * 20_000 + "'", "2: the line has more than"),
        ("a = [\n" + "1,\n" * 20_001 + "]", "1: it has more than 20000 values"),
        ("#" * 1000 + "\n" + ("#" * 999 + "\n") * 1100, "1: it has more than 1048576 bytes"),
    ],
    ids=range(9),
)
def test_a_file_without_end(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "demo.toml").write_text(text)
    recipe = tmp_path / "demo" / "recipe.toml"
    recipe.parent.mkdir()
    recipe.write_text(text)
    for load in (lambda: load_toolchain("demo", tmp_path), lambda: load_recipe(recipe, tmp_path)):
        with pytest.raises(ConfigError) as caught:
            load()
        assert said in caught.value.details[0]
        assert len(str(caught.value)) < 600


def test_many_mistakes_are_not_all_shown(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text("".join(f"key{number} = 1\n" for number in range(500)))
    with pytest.raises(ConfigError) as caught:
        load_toolchain("demo", tmp_path)
    assert len(caught.value.details) == 101
    assert caught.value.details[-1].startswith("... and 4")


def test_a_torch_that_is_no_text(tmp_path: Path) -> None:
    """Also where another mistake is looked for among them."""
    (tmp_path / "demo.toml").write_text("[[builds]]\ntorch = []\n[[builds]]\ntorch = {}\n")
    with pytest.raises(ConfigError) as caught:
        load_toolchain("demo", tmp_path)
    assert any("builds[0].torch: must be a string" in line for line in caught.value.details)


def test_a_recipe_whose_folder_has_no_name_for_it(tmp_path: Path) -> None:
    """Its name would be in locks that nobody could read."""
    recipe = tmp_path / "it's $(mine)" / "recipe.toml"
    recipe.parent.mkdir()
    recipe.write_text("")
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, tmp_path)
    assert any("is not a valid folder name for a recipe" in line for line in caught.value.details)
