"""What images are made of: tags, rules for every toolchain's files, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import platform
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from fatwheel.config.pinned import Package
from fatwheel.config.toolchain import Base, Toolchain
from fatwheel.config.toolchains import list_toolchains
from fatwheel.containers import contexts
from fatwheel.containers.contexts import BuildContext, contexts_of, contexts_on, wine_context
from fatwheel.errors import ConfigError, FatwheelError, ToolchainError, UsageError

from ...helpers.dockerfiles import bases, copies, downloads, instructions, mistakes, runs, verbs
from ...helpers.toolchains import shipped_toolchain

ROOT = Path(__file__).resolve().parents[3]
TOOLCHAINS = ROOT / "toolchains"
LINUX = shipped_toolchain("linux-cuda13.0")
ARCHIVES = shipped_toolchain("linux-cuda12.3")
WINDOWS = shipped_toolchain("windows-msvc17.8-cuda12.3")

EVERY = [
    pytest.param(toolchain, build.python, build.torch, id=f"{name}-{build.python}-{build.torch}")
    for name in list_toolchains(TOOLCHAINS)
    for toolchain in [shipped_toolchain(name)]
    for build in toolchain.builds
]


def both(toolchain: Toolchain, **bases: str) -> tuple[BuildContext, BuildContext]:
    return contexts_of(toolchain, "3.11", toolchain.default_torch, bases)


# -- every toolchain -----------------------------------------------------------------------------


@pytest.mark.parametrize(("toolchain", "python", "torch"), EVERY)
def test_every_context_keeps_our_rules(toolchain: Toolchain, python: str, torch: str) -> None:
    for context in contexts_of(toolchain, python, torch, {}):
        assert mistakes(context, toolchain) == [], f"{context.tag} breaks our rules"


@pytest.mark.parametrize(("toolchain", "python", "torch"), EVERY)
def test_all_packages_are_in_one_of_the_two_images(
    toolchain: Toolchain, python: str, torch: str
) -> None:
    [build] = [b for b in toolchain.builds if (b.python, b.torch) == (python, torch)]
    pinned = {package.filename for package in (*toolchain.packages, *build.packages)}
    early, late = contexts_of(toolchain, python, torch, {})
    wheels = [
        {file.filename for file in context.files if file.filename.endswith(".whl")}
        for context in (early, late)
    ]
    assert wheels[0] | wheels[1] == pinned
    assert wheels[0] & wheels[1] == set()


def test_the_toolchain_image_has_compilers_and_tools_and_the_env_has_torch() -> None:
    early, late = both(LINUX)
    roles = {package.filename: package.role for package in LINUX.packages}
    assert {roles[file.filename] for file in early.files} == {"compiler", "build", "installer"}
    assert "torch" in {file.name for file in late.files}
    early, late = both(WINDOWS)
    names = {file.name for file in early.files}
    assert {"cuda_nvcc", "ninja"} <= names
    assert WINDOWS.msvc is not None
    assert set(WINDOWS.msvc.payloads) < set(early.files)


# -- tags ----------------------------------------------------------------------------------------


def test_tags_say_what_they_are_and_engines_take_them() -> None:
    early, late = both(LINUX)
    assert re.fullmatch(r"fatwheel/linux-cuda13\.0:toolchain-[0-9a-f]{16}", early.tag)
    assert re.fullmatch(r"fatwheel/linux-cuda13\.0:cp311-torch2\.11\.0-[0-9a-f]{16}", late.tag)
    assert late.base == early.tag
    assert (early.kind, late.kind) == ("toolchain", "env")


def test_the_same_inputs_give_the_same_tags_whatever_their_order() -> None:
    shuffled = dataclasses.replace(LINUX, packages=LINUX.packages[::-1])
    assert both(shuffled) == both(LINUX)
    assert both(LINUX, **{"3.13": "sha256:" + "1" * 64}) == both(LINUX), "a base of another Python"


def test_archives_may_be_merged_on_a_base_that_brings_its_python() -> None:
    packages = tuple(one for one in LINUX.packages if one.role != "compiler")
    toolchain = dataclasses.replace(LINUX, packages=packages, cuda_files=ARCHIVES.cuda_files)
    first, last = both(toolchain)
    for context in (first, last):
        assert mistakes(context, toolchain) == [], f"{context.tag} breaks our rules"
    assert {file.filename for file in toolchain.cuda_files} <= {f.filename for f in first.files}
    text = dict(first.texts)["Dockerfile"].decode()
    home = "/opt/fatwheel/cuda-of-archives"
    merged, kept = (
        text.index(f"unpack --into {home} "),
        text.index(f"--from=unpacked {home} {home}"),
    )
    assert merged < kept < text.index(f"nvcc \\\n        --cuda-home {home} ")
    assert "archive.tar.xz" not in text[kept:], "the archives are in the image"


def test_all_pythons_of_archives_share_a_toolchain_image() -> None:
    for toolchain in (ARCHIVES, WINDOWS):
        made = [contexts_of(toolchain, python, "2.1.1", {}) for python in ("3.10", "3.11")]
        assert made[0][0] == made[1][0]
        assert made[0][1].tag != made[1][1].tag


def package_of(toolchain: Toolchain, name: str, **changed: object) -> Toolchain:
    packages = [
        dataclasses.replace(package, **changed) if package.name == name else package
        for package in toolchain.packages
    ]
    return dataclasses.replace(toolchain, packages=tuple(packages))


def other_msvc(**changed: object) -> Toolchain:
    assert WINDOWS.msvc is not None
    return dataclasses.replace(WINDOWS, msvc=dataclasses.replace(WINDOWS.msvc, **changed))


def other_base(toolchain: Toolchain) -> Toolchain:
    assert toolchain.containers is not None
    bases = tuple(
        dataclasses.replace(base, digest="sha256:" + "a" * 64)
        for base in toolchain.containers.bases
    )
    containers = dataclasses.replace(toolchain.containers, bases=bases)
    return dataclasses.replace(toolchain, containers=containers)


@pytest.mark.parametrize(
    "changed",
    [
        package_of(LINUX, "nvidia-cuda-nvcc", sha256="b" * 64),
        package_of(LINUX, "pip", sha256="b" * 64),
        package_of(LINUX, "ninja", filename="ninja-1.0-py3-none-any.whl"),
        dataclasses.replace(LINUX, nvcc="13.0.1"),
        dataclasses.replace(LINUX, gcc=(9, 14)),
        other_base(LINUX),
        dataclasses.replace(WINDOWS, cuda_files=WINDOWS.cuda_files[1:]),
        dataclasses.replace(WINDOWS, interpreters=WINDOWS.interpreters[1:]),
        other_msvc(payloads=WINDOWS.msvc.payloads[1:] if WINDOWS.msvc else ()),
        other_base(WINDOWS),
    ],
)  # fmt: skip
def test_whatever_goes_into_the_toolchain_image_changes_both_tags(changed: Toolchain) -> None:
    original = {t.name: t for t in (LINUX, WINDOWS)}[changed.name]
    tags = [{context.tag for context in both(one)} for one in (original, changed)]
    assert tags[0] & tags[1] == set(), "an image of other inputs has the same tag"


def test_whatever_goes_into_the_env_alone_leaves_the_toolchain_image() -> None:
    changed = package_of(LINUX, "nvidia-cublas", sha256="b" * 64)
    assert both(changed)[0] == both(LINUX)[0]
    assert both(changed)[1].tag != both(LINUX)[1].tag


def test_an_own_base_is_built_on_and_changes_both_tags() -> None:
    image = "sha256:" + "c" * 64
    early, late = both(LINUX, **{"3.11": image})
    assert early.base == image
    assert instructions(early)[0].value == image
    assert {early.tag, late.tag}.isdisjoint({context.tag for context in both(LINUX)})
    assert mistakes(early, LINUX) == []


def test_the_code_that_runs_inside_is_part_of_the_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    before = both(LINUX)[0]
    monkeypatch.setattr(contexts, "_MAIN", b"other code\n")
    after = both(LINUX)[0]
    assert after.tag != before.tag
    assert dict(after.texts)["provision/__main__.py"] == b"other code\n"


# -- what is refused, and what is not known yet --------------------------------------------------


def test_a_name_that_a_template_mistypes_is_an_error() -> None:
    template = contexts._TEMPLATES.from_string("FROM {{ bsae }}")
    with pytest.raises(jinja2.UndefinedError, match="bsae"):
        template.render(base="x")
    with pytest.raises(jinja2.UndefinedError, match="no attribute 'nvc'"):
        contexts._TEMPLATES.from_string("{{ toolchain.nvc }}").render(toolchain=LINUX)


@pytest.mark.parametrize(
    ("toolchain", "error", "words"),
    [
        (dataclasses.replace(LINUX, containers=None), ToolchainError, "has no container images"),
        (dataclasses.replace(LINUX, builds=LINUX.builds[:1]), UsageError, "does not support"),
        (
            dataclasses.replace(
                LINUX, packages=tuple(p for p in LINUX.packages if p.role != "installer")
            ),
            ConfigError,
            "has no package with the role 'installer'",
        ),
        (
            package_of(LINUX, "ninja", filename="ninja $(reboot).whl"),
            ConfigError,
            "cannot be used in a Dockerfile",
        ),
        (
            dataclasses.replace(ARCHIVES, interpreters=ARCHIVES.interpreters[:1]),
            ConfigError,
            "no base image of toolchain linux-cuda12.3 is for Python 3.11",
        ),
    ],
)
def test_what_makes_no_image_is_refused(
    toolchain: Toolchain, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words.replace("(", r"\(").replace(")", r"\)")):
        both(toolchain)


def test_what_is_not_locked_is_named_and_can_never_match() -> None:
    assert LINUX.containers is not None
    bases = (Base("python:3.11-bookworm", "", ("3.11",)),)
    containers = dataclasses.replace(LINUX.containers, bases=bases)
    toolchain = package_of(LINUX, "ninja", sha256="", size=0)
    early, late = both(dataclasses.replace(toolchain, containers=containers))
    [ninja] = [package.filename for package in LINUX.packages if package.name == "ninja"]
    assert set(early.unlocked) == {ninja, "python:3.11-bookworm"}
    assert late.unlocked == ()
    assert mistakes(early, toolchain) == []
    requirements = b"".join(text for path, text in early.texts if path.endswith(".txt"))
    assert b"ninja==1.13.2 --hash=sha256:" + b"0" * 64 in requirements


def test_wheels_are_installed_some_hundred_megabytes_at_a_time() -> None:
    late = both(LINUX)[1]
    sizes = {f"files/{file.filename}": file.size for file in late.files}
    copied = [
        sum(sizes.get(word, 0) for word in one.value.split())
        for one in instructions(late)
        if one.verb == "COPY"
    ]
    assert max(copied) < 610e6
    assert len(copied) == len([run for run in runs(late) if "pip install" in run])


# -- values that came past all checks ------------------------------------------------------------

HOSTILE = (
    "x\nEVIL", "x\rEVIL", "x EVIL", "x\tEVIL", "x\0EVIL", 'x"EVIL', "x'EVIL", "x$(EVIL)", "x`EVIL`",
    "x${EVIL}", "x;EVIL", "x&EVIL", "x|EVIL", "x>EVIL", "x%EVIL%", "x^EVIL", "x\\EVIL", "x#EVIL",
    "x*EVIL", "--EVIL", "xüEVIL", "x\u2028EVIL",
)  # fmt: skip


def pip_of(toolchain: Toolchain) -> Package:
    return next(package for package in toolchain.packages if package.role == "installer")


def leaves(part: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the texts of a toolchain are; of several alike in a row, the first."""
    if isinstance(part, str):
        yield place
    elif isinstance(part, tuple) and part:
        yield from leaves(part[0], (*place, 0))
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            yield from leaves(getattr(part, field.name), (*place, field.name))


def planted(part: Any, place: tuple[str | int, ...], value: str) -> Any:
    if not place:
        return value
    first, *rest = place
    if isinstance(first, int):
        return (planted(part[first], tuple(rest), value), *part[first + 1 :])
    return dataclasses.replace(part, **{first: planted(getattr(part, first), tuple(rest), value)})


@pytest.mark.parametrize("toolchain", [LINUX, ARCHIVES, WINDOWS], ids=lambda one: one.name)
def test_no_value_becomes_more_than_a_word(toolchain: Toolchain) -> None:
    """Even past the border, nothing is rendered of what is no plain word; and what no text has,
    such as a URL, does not get into one."""
    build = next(one for one in toolchain.builds if one.python == "3.11")
    toolchain = dataclasses.replace(
        toolchain, builds=(build,), packages=(pip_of(toolchain), *toolchain.packages[:2])
    )
    places = [place for place in leaves(toolchain) if place[-1] != "os"]
    assert len(places) > 20
    refused = 0
    for place, value in itertools.product(places, HOSTILE):
        made = planted(toolchain, place, value)
        try:
            pair = contexts_of(made, made.builds[0].python, made.builds[0].torch, {})
        except FatwheelError:
            refused += 1
            continue
        for context in pair:
            # As the folder of a Python it can be a part of a path, and so of one word.
            texts = [text for path, text in context.texts if not path.startswith("provision/")]
            words = [word for word in b" ".join(texts).decode().split() if "EVIL" in word]
            wrong = [word for word in words if not re.fullmatch(r"[\w/.][\w/.@:\\-]*", word)]
            assert wrong == [], (place, value)
    assert refused > 10 * len(HOSTILE), "values that are rendered are refused"


@pytest.mark.parametrize("value", HOSTILE)
def test_no_base_becomes_more_than_a_word(value: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used in a Dockerfile"):
        contexts_of(LINUX, "3.11", "2.11.0", {"3.11": value})


def test_files_that_cannot_lie_beside_each_other() -> None:
    [ninja] = [package for package in LINUX.packages if package.name == "ninja"]
    for other in (ninja.filename.upper(), "SHA256SUMS", "sha256sums"):
        more = dataclasses.replace(ninja, filename=other, sha256="0" * 64)
        with pytest.raises(ConfigError, match=r"are named|cannot be the name"):
            both(dataclasses.replace(LINUX, packages=(*LINUX.packages, more)))


def test_a_name_that_no_image_can_have() -> None:
    with pytest.raises(ConfigError, match=r"'fatwheel/My_Tools:.*' is not a valid image name"):
        both(dataclasses.replace(LINUX, name="My_Tools"))


# -- the rules themselves ------------------------------------------------------------------------


def doctored(context: BuildContext, path: str, change: Callable[[bytes], bytes]) -> BuildContext:
    texts = tuple((name, change(text) if name == path else text) for name, text in context.texts)
    assert texts != context.texts, "nothing was doctored"
    return dataclasses.replace(context, texts=texts)


def swap(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda text: text.replace(old.encode(), new.encode())


def add(line: str) -> Callable[[bytes], bytes]:
    return lambda text: text + line.encode() + b"\n"


PYTHON = "scripts/install-python.cmd"


@pytest.mark.parametrize(
    ("kind", "path", "change", "words"),
    [
        (0, "Dockerfile", lambda text: b"# first\n" + text, "not the escape directive"),
        (0, "Dockerfile", lambda text: re.sub(rb"@sha256:\w+", b"", text), "not fixed by a digest"),
        (1, "Dockerfile", lambda text: re.sub(rb":toolchain-\w+", b":latest", text), "not fixed"),
        (0, "Dockerfile", add("ADD https://example.org/x.zip C:/x.zip"), "ADD is not allowed"),
        (0, "Dockerfile", add('SHELL ["powershell"]'), "SHELL is not allowed"),
        (0, "Dockerfile", add("RUN powershell Get-Date"), "needs powershell"),
        (0, PYTHON, add("powershell -c x"), "install-python.cmd needs powershell"),
        (0, "Dockerfile", add("RUN curl -O https://example.org/x"), "downloads something: curl"),
        (0, PYTHON, add("certutil -urlcache -f http://x y"), "downloads something: certutil"),
        (1, "Dockerfile", swap(" --no-index", ""), "pip without --no-index"),
        (1, "Dockerfile", swap(" --no-deps", ""), "pip without --no-deps"),
        (1, "Dockerfile", swap(" --require-hashes", ""), "pip without --require-hashes"),
        (1, "Dockerfile", swap("env-1.txt", "env-9.txt"), "pip without requirements"),
        (1, "Dockerfile", add("RUN C:\\Python311\\python.exe -m pip install x"), "not the pinned"),
        (1, "requirements/env-1.txt", add("requests==2.0"), "not a requirement with a hash"),
        (1, "requirements/env-1.txt", add(f"x==1 --hash=sha256:{'d' * 64}"), "no file of the"),
        (0, "Dockerfile", add("COPY files/unknown.exe C:/x/"), "files/unknown.exe is not in"),
        (0, "Dockerfile", swap("files/cuda_nvtx-", "files/pip-"), "nothing copies"),
        (0, "Dockerfile", add("RUN start /w C:\\fatwheel\\files\\x.exe"), "outside of a script"),
        (0, PYTHON, swap('if "%code%"=="3010" set code=0', "rem"), "install-python.cmd lacks"),
        (0, PYTHON, swap("exit /b %code%", "exit /b 0"), "after the installer: exit /b %code%"),
        (0, PYTHON, swap('rd /s /q "%TEMP%"', "rem"), "lacks after the installer: rd"),
        (0, PYTHON, swap("\r\n", "\n"), "lines that end as on Unix"),
        (0, PYTHON, swap("start /w", "start"), "waits for no installer"),
        (0, "Dockerfile", swap("provision msvc", "provision vc"), "MSVC is not unpacked"),
        (0, PYTHON, swap("| find", "| more"), "does not compare the version"),
        (0, "Dockerfile", swap("--nvcc 12.3", "--nvcc 12.4"), "nvcc's version is not compared"),
        (0, "Dockerfile", swap(" 3.11.9", ""), "version of Python 3.11 is not compared"),
        (1, "Dockerfile", swap("--torch 2.1.1", "--torch 2.2"), "does not compare --torch"),
        (1, "Dockerfile", swap("--cl 19.38.33130", ""), "does not compare --cl"),
        (0, "Dockerfile", add("RUN echo " + "x" * 8200), "a command of"),
    ],
)
def test_the_rules_find_what_breaks_them(
    kind: int, path: str, change: Callable[[bytes], bytes], words: str
) -> None:
    found = mistakes(doctored(both(WINDOWS)[kind], path, change), WINDOWS)
    assert any(words in mistake for mistake in found), f"{words!r} is not in {found}"


def test_the_rules_find_a_base_that_is_not_checked() -> None:
    context = doctored(both(LINUX)[0], "Dockerfile", swap("provision base", "provision stamp"))
    assert "g++ and Python.h of the base are not checked" in mistakes(context, LINUX)


def test_the_rules_find_a_file_without_a_hash() -> None:
    early = both(LINUX)[0]
    files = tuple(
        dataclasses.replace(file, sha256="") if isinstance(file, Package) else file
        for file in early.files
    )

    class Silent(BuildContext):
        unlocked = ()

    context = Silent(early.kind, early.tag, early.base, early.texts, files)
    assert any("has no sha256" in mistake for mistake in mistakes(context, LINUX))


# -- the image with Wine ---------------------------------------------------------------------------


def test_the_image_with_wine_keeps_our_rules() -> None:
    context = wine_context(WINDOWS, {})
    assert [
        mistake for rule in (bases, verbs, downloads, copies) for mistake in rule(context)
    ] == []
    assert context.unlocked == ("debian:bookworm-slim",)
    for name, text in context.texts:
        if name.startswith("scripts/"):
            assert subprocess.run(["sh", "-n"], input=text, check=False).returncode == 0, name


def test_toolchains_share_the_image_with_wine_and_what_is_in_it_decides_its_tag() -> None:
    assert WINDOWS.wine
    tag = wine_context(WINDOWS, {}).tag
    assert re.fullmatch(r"fatwheel/wine:8\.0-[0-9a-f]{16}", tag)
    assert wine_context(dataclasses.replace(WINDOWS, name="other", packages=()), {}).tag == tag
    first, *rest = WINDOWS.wine.packages
    other = dataclasses.replace(first, sha256="ab" * 32)
    wine = dataclasses.replace(WINDOWS.wine, packages=(other, *rest))
    assert wine_context(dataclasses.replace(WINDOWS, wine=wine), {}).tag != tag
    own = wine_context(WINDOWS, {"wine": f"sha256:{'cd' * 32}"})
    assert own.base == f"sha256:{'cd' * 32}"
    assert own.tag != tag


def test_an_engine_with_linux_containers_takes_wine_on_linux(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kinds(os_name: str, toolchain: Toolchain = WINDOWS) -> list[str]:
        found = contexts_on(os_name, toolchain, "3.11", toolchain.default_torch, {})
        return [context.kind for context in found]

    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert kinds("linux") == ["wine"]
    assert kinds("windows") == ["toolchain", "env"]
    assert kinds("") == ["toolchain", "env"]
    assert kinds("", dataclasses.replace(WINDOWS, containers=None)) == ["wine"]
    assert kinds("linux", LINUX) == ["toolchain", "env"]
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert kinds("linux") == ["toolchain", "env"], "its folders are not where Linux's are"
