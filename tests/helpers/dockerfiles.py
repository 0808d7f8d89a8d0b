"""Our rules for images' build contexts, on top of a parser of Dockerfiles that is not ours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dockerfile_parse import DockerfileParser

from fatwheel.config.toolchain import Toolchain
from fatwheel.containers.contexts import BuildContext

DIGEST = re.compile(r"^\S+@sha256:[0-9a-f]{64}$")
OURS = re.compile(r"^fatwheel/[\w.-]+:toolchain-[0-9a-f]{16}$")
IMAGE_ID = re.compile(r"^sha256:[0-9a-f]{64}$")
REQUIREMENT = re.compile(r"^(\S+)==(\S+) --hash=sha256:([0-9a-f]{64})$")
DOWNLOAD = re.compile(
    r"https?://|ftp://|\b(curl|wget|git clone|apt|apt-get|yum|dnf|apk|choco|winget|bitsadmin|"
    r"certutil|invoke-webrequest|start-bitstransfer|webclient)\b",
    re.IGNORECASE,
)
PIP_OPTIONS = ("--no-index", "--no-deps", "--require-hashes", "--no-compile")
LONGEST = 8191  # characters of a command line that cmd takes


@dataclass(frozen=True)
class Instruction:
    verb: str
    value: str


def instructions(context: BuildContext) -> list[Instruction]:
    stream = io.BytesIO(dict(context.texts)["Dockerfile"])
    return [
        Instruction(entry["instruction"], entry["value"])
        for entry in DockerfileParser(fileobj=stream).structure
        if entry["instruction"] != "COMMENT"
    ]


def mistakes(context: BuildContext, toolchain: Toolchain) -> list[str]:
    """What is wrong with a build context; nothing, it is to be hoped."""
    assert toolchain.containers is not None
    rules = [bases, verbs, downloads, copies, wheels]
    if toolchain.containers.os == "windows":
        rules += [escape, no_powershell, installers, lengths]
    found = [mistake for rule in rules for mistake in rule(context)]
    check = checks_toolchain if context.kind == "toolchain" else checks_env
    return found + list(check(context, toolchain))


def runs(context: BuildContext) -> list[str]:
    return [one.value for one in instructions(context) if one.verb == "RUN"]


def scripts(context: BuildContext) -> dict[str, str]:
    return {path: text.decode() for path, text in context.texts if path.endswith(".cmd")}


def escape(context: BuildContext) -> Iterator[str]:
    first = dict(context.texts)["Dockerfile"].decode().splitlines()[0]
    if first != "# escape=`":
        yield f"the first line is not the escape directive: {first!r}"


def bases(context: BuildContext) -> Iterator[str]:
    froms = [one.value.split()[0] for one in instructions(context) if one.verb == "FROM"]
    if not froms or instructions(context)[0].verb != "FROM":
        yield "does not begin with FROM"
    for base in froms:
        if not (DIGEST.match(base) or IMAGE_ID.match(base) or OURS.match(base)):
            yield f"FROM {base} is not fixed by a digest"


def verbs(context: BuildContext) -> Iterator[str]:
    for one in instructions(context):
        if one.verb not in ("FROM", "COPY", "RUN"):
            yield f"{one.verb} is not allowed: {one.value}"


def downloads(context: BuildContext) -> Iterator[str]:
    for text in (*runs(context), *scripts(context).values()):
        for match in DOWNLOAD.finditer(text):
            yield f"downloads something: {match[0]}"


def copies(context: BuildContext) -> Iterator[str]:
    texts = {path for path, _ in context.texts}
    files = {f"files/{file.filename}": file for file in context.files}
    used: set[str] = {"Dockerfile"}
    for one in instructions(context):
        words = one.value.split()
        if one.verb != "COPY" or words[0].startswith("--from="):
            continue
        if not words[-1].endswith("/"):
            yield f"COPY to {words[-1]}, which is not written as a folder"
        for source in words[:-1]:
            below = {path for path in texts if path == source or path.startswith(source)}
            if source in files:
                used.add(source)
                file = files[source]
                known = re.fullmatch("[0-9a-f]{64}", file.sha256)
                if not known and file.filename not in context.unlocked:
                    yield f"COPY {source} has no sha256, and nobody says so"
            elif below and (source.endswith("/") or source in texts):
                used |= below
            else:
                yield f"COPY {source} is not in the context"
    for path in sorted((texts | files.keys()) - used):
        yield f"{path} is in the context and nothing copies it"


def wheels(context: BuildContext) -> Iterator[str]:
    """pip installs exactly files of the context, by their hashes."""
    texts = {path.rpartition("/")[2]: text.decode() for path, text in context.texts}
    hashes = {file.sha256 or "0" * 64: file.filename for file in context.files}
    for run in runs(context):
        for call in re.findall(r"[/\\]pip install\b[^&]*", run):
            yield from (f"pip without {option}" for option in PIP_OPTIONS if option not in call)
            named = re.search(r"-r \S*?([\w.-]+\.txt)", call)
            if named is None or named[1] not in texts:
                yield f"pip without requirements of this context: {call}"
                continue
            for line in texts[named[1]].splitlines():
                match = REQUIREMENT.match(line)
                if match is None:
                    yield f"{named[1]}: not a requirement with a hash: {line}"
                elif match[3] not in hashes:
                    yield f"{named[1]}: no file of the context is {match[1]} with that hash"
        if re.search(r"\bpip3? install\b|-m pip", re.sub(r"[/\\]pip install", "", run)):
            yield f"a pip that is not the pinned one: {run}"


def no_powershell(context: BuildContext) -> Iterator[str]:
    for path, text in context.texts:
        if path == "Dockerfile" or path.endswith(".cmd"):
            for match in re.finditer(r"powershell|pwsh|\.ps1", text.decode(), re.IGNORECASE):
                yield f"{path} needs {match[0]}"


def installers(context: BuildContext) -> Iterator[str]:
    """Installers run in scripts, which take 0 and 3010 for success and nothing else."""
    for run in runs(context):
        installer = re.search(r"\bstart /w|files\\\S+\.(exe|msi)", run)
        if installer and not re.match(r"C:\\fatwheel\\scripts\\[\w-]+\.cmd C:", run):
            yield f"an installer outside of a script: {run}"
    for path, text in scripts(context).items():
        lines = [line.strip() for line in text.split("\r\n")]
        if "\n" in text.replace("\r\n", ""):
            yield f"{path} has lines that end as on Unix"
        starts = [number for number, line in enumerate(lines) if line.startswith("start /w")]
        if not starts:
            yield f"{path} waits for no installer (start /w)"
            continue
        after = lines[starts[0] :]
        wanted = (
            "set code=%ERRORLEVEL%",
            'if "%code%"=="3010" set code=0',
            'if not "%code%"=="0" (',
            "exit /b %code%",
            'rd /s /q "%TEMP%"',
        )
        places = [after.index(line) if line in after else None for line in wanted]
        for line, place in zip(wanted, places, strict=True):
            if place is None:
                yield f"{path} lacks after the installer: {line}"
        known = [place for place in places if place is not None]
        if known != sorted(known):
            yield f"{path} does these in another order: {', '.join(wanted)}"


def lengths(context: BuildContext) -> Iterator[str]:
    for run in runs(context):
        if len(run) > LONGEST:
            yield f"a command of {len(run)} characters: {run[:60]}"


def checks_toolchain(context: BuildContext, toolchain: Toolchain) -> Iterator[str]:
    """Each installed tool is compared with what it must be, after it was installed."""
    last = "\n".join(runs(context))
    if not re.search(
        rf"provision nvcc\s+--cuda-home \S+ --nvcc {re.escape(toolchain.nvcc)}\b", last
    ):
        yield "nvcc's version is not compared"
    for interpreter in toolchain.interpreters:
        version = re.escape(interpreter.download.version)
        if not re.search(rf"(--version|install-python\.cmd \S+\s+\S+) {version}\b", last):
            yield f"the version of Python {interpreter.python} is not compared"
    if toolchain.msvc is None:
        if not re.search(r"provision base\s+--python \S+ --cuda \S+ --gcc \d+ \d+", last):
            yield "g++ and Python.h of the base are not checked"
        return
    texts = scripts(context)
    if not re.search(r"provision msvc\s+--into \S+ \S+\.vsix ", last):
        yield "MSVC is not unpacked"
    if 'find "Python %~3."\r\nif errorlevel 1 (' not in texts.get("scripts/install-python.cmd", ""):
        yield "install-python.cmd does not compare the version"


def checks_env(context: BuildContext, toolchain: Toolchain) -> Iterator[str]:
    assert toolchain.containers is not None
    last = runs(context)[-1]
    torch = context.tag.partition("-torch")[2].partition("-")[0]
    options = {"--torch": torch, "--nvcc": toolchain.nvcc}
    if toolchain.msvc:
        options |= {"--cl": toolchain.msvc.cl}
    if f"provision {toolchain.containers.os} " not in " ".join(last.split()):
        yield f"the last step describes nothing: {last}"
    for option, value in options.items():
        if not re.search(rf"{option} {re.escape(value)}(\s|$)", last):
            yield f"the last step does not compare {option} with {value}"
