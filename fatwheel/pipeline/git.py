"""Fetches commits of git repositories, and writes their files.

    <cache>/git/<commit>/    a repository that has this commit

Only the program `git` speaks with servers. It sees no settings of the user or the system, asks
nobody for a password, starts no hooks, and has its time and its disk space bounded. What it fetched
is not believed: every object is hashed here before it is used, from the commit down to each file,
so the recipe's ids stand for all that is written. Nothing is checked out: filters and attributes of
a repository have no effect, and submodules are fetched from where the recipe says.

Formats: gitformat-pack, git-cat-file (`--batch`), "Git Internals: Git Objects".
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import IO
from urllib.parse import urlsplit

from ..config.recipe import Commit, Repository, Submodule
from ..errors import (
    FatwheelError,
    FetchError,
    FormatError,
    HashMismatchError,
    ToolchainError,
    UsageError,
)
from ..events import Emit, Note, step
from ..provenance.checks import host_of
from ..storage import files
from ..storage.cache import VARIABLE
from ..text import clean
from ..toolchain.pipconfig import PipConfig, read_pip_config, redacted
from .sdist import FIRST_TIME, MAX_DEPTH, MAX_EXPANSION, MAX_MEMBERS, MAX_PART

MAX_REPOSITORY = 4 << 30  # bytes that a fetch may take on the disk
MAX_OBJECT = 256 << 20  # bytes of one file, which is read as a whole
PATIENCE = 1800  # seconds that a fetch may take
_STALLED = 120  # seconds without any progress
_MOST_LINKS = 40  # that lead to each other; Linux follows no more (path_resolution(7))
_TICK = 0.2
_SHOWN = 12  # lines of what git says

_FOLDER, _FILE, _PROGRAM, _LINK, _SUBMODULE = "40000", "100644", "100755", "120000", "160000"
_KINDS = (_FOLDER, _FILE, "100664", _PROGRAM, _LINK, _SUBMODULE)
_PROXIES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    f"http.lowSpeedTime={_STALLED}",
    "http.lowSpeedLimit=1",
    "safe.directory=*",  # the owner's settings are read, and none of them starts a program
)


class DamagedError(Exception):
    """An object that is not there, or is not what its id says."""


# -- the program -----------------------------------------------------------------------------------


def git_command(*words: str) -> list[str]:
    """A command line of git that heeds no settings. Raises ToolchainError where there is no git."""
    program = shutil.which("git")
    if program is None:
        raise ToolchainError(
            "git is not installed; it fetches the recipe's source",
            hint="install it (Debian: `apt-get install git`), or use an archive: docs/recipes.md",
        )
    return [program, "--no-pager", *(word for one in _SETTINGS for word in ("-c", one)), *words]


def git_environment(home: Path, url: str = "", config: PipConfig | None = None) -> dict[str, str]:
    """git's variables. home: an empty folder. url: the one place that it may speak with."""
    found = {name: value for name, value in os.environ.items() if name.lower() in _PROXIES}
    if os.name == "nt":
        found["SYSTEMROOT"] = os.environ.get("SYSTEMROOT", "")
    if config and config.proxy:
        found |= dict.fromkeys(("https_proxy", "http_proxy"), config.proxy)
    if config and config.cert:
        found["GIT_SSL_CAPATH" if os.path.isdir(config.cert) else "GIT_SSL_CAINFO"] = config.cert
    return found | {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_ALLOW_PROTOCOL": urlsplit(url).scheme or "none",
    }


@dataclass(frozen=True)
class _Git:
    """git in a bare repository that is fatwheel's own."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *words: str) -> str:
        """What the fetch of something says; '' where all went well. Raises FetchError for what
        takes too long or too much."""
        with (self.folder / "said.txt").open("wb+") as said:
            process = subprocess.Popen(
                git_command(f"--git-dir={self.folder}", *words),
                env=self.environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
            try:
                self._wait(process)
            finally:
                _end(process)
            said.seek(0)
            text = said.read(1 << 16).decode(errors="replace")
        return (text or f"exit code {process.returncode}") if process.returncode else ""

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise FetchError(f"git did not end within {PATIENCE // 60} minutes")
            if _size(self.folder) > MAX_REPOSITORY:
                raise FetchError(
                    "the repository has more than 4 GiB",
                    hint="use an archive of the commit: docs/recipes.md",
                )
            with suppress(subprocess.TimeoutExpired):
                process.wait(_TICK)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End git and the helper that speaks with the server."""
    if process.poll() is None:
        if os.name == "nt":
            process.kill()
        else:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
        process.wait()


def _size(folder: Path) -> int:
    """Bytes of what git writes: packs, and loose objects while a dumb server is read."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += os.lstat(os.path.join(place, name)).st_size
    return found


# -- fetching --------------------------------------------------------------------------------------


def fetch_commit(pin: Commit, cache: Path, emit: Emit) -> Path:
    """The repository in the cache that has a commit, which is fetched if need be.

    Raises FetchError where it cannot be had, StoreError (disk full), ToolchainError (no git).
    """
    folder = cache / "git" / pin.commit
    if folder.is_dir():
        return folder
    _check_host(pin)
    try:
        folder.parent.mkdir(exist_ok=True)
        note = Note("another build is fetching a repository: waiting for it")
        with files.locked(folder.parent / "lock", waiting=lambda: emit(note)):
            for part in folder.parent.glob(".*.part"):
                shutil.rmtree(part, ignore_errors=True)
            if not folder.is_dir():
                with step(emit, "fetch", f"{_host(pin.url)} {pin.commit[:12]}"):
                    _fetch(pin, folder)
    except OSError as error:
        raise files.disk_error(error, "keep a repository", folder, f"{VARIABLE}=FOLDER") from error
    return folder


def _fetch(pin: Commit, folder: Path) -> None:
    part = folder.with_name(f".{secrets.token_hex(8)}.part")
    part.mkdir()
    try:
        home = part / "home"
        home.mkdir()
        git = _Git(part / "repository", git_environment(home, pin.url, read_pip_config()))
        git.folder.mkdir()
        kind = "sha256" if len(pin.commit) == 64 else "sha1"
        if trouble := git.run("init", "--quiet", "--bare", f"--object-format={kind}"):
            raise FetchError("git cannot make a repository", details=_said(trouble))
        _get(pin, git)
        with suppress(OSError):
            (git.folder / "said.txt").unlink()
        git.folder.rename(folder)
    except FatwheelError as error:
        raise error.within(_shown(pin)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _get(pin: Commit, git: _Git) -> None:
    """The commit alone where the server gives it by its id, else all branches and tags."""
    common = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
    if not git.run(*common, "--depth=1", pin.url, pin.commit):
        return
    heads, tags = (f"+refs/{kind}/*:refs/{kind}/*" for kind in ("heads", "tags"))
    if trouble := git.run(*common, pin.url, heads, tags):
        raise FetchError(
            "the repository could not be fetched",
            details=_said(trouble),
            hint="check the URL and the network; no password is sent or asked for",
        )
    if git.run("cat-file", "-e", f"{pin.commit}^{{commit}}"):
        raise FetchError(
            f"the repository has no commit {pin.commit} on any of its branches and tags",
            hint="was it pushed there, or removed by a force push?",
        )


def _check_host(pin: Commit) -> None:
    """A lock from elsewhere makes this machine ask no host that nothing here names."""
    if pin.hosts is not None and host_of(pin.url) not in pin.hosts:
        raise FetchError(
            "the lock names a repository on a host from which no toolchain or recipe here fetches",
            where=_shown(pin),
            hint="if you trust the host, put a recipe of yours into kernels/ that names it",
        )


@contextmanager
def _in_time(where: str) -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired as error:
        what = f"git did not end within {PATIENCE // 60} minutes"
        raise FetchError(what, where=where) from error


def _host(url: str) -> str:
    return clean(urlsplit(url).hostname or "")


def _shown(pin: Commit) -> str:
    return clean(redacted(pin.vcs_url))


def _said(text: str) -> list[str]:
    lines = [clean(redacted(line.rstrip()))[:300] for line in text.splitlines() if line.strip()]
    return lines[-_SHOWN:]


def resolve_revision(url: str, revision: str) -> str:
    """The id of the commit that a branch or tag of a repository is at; an id is its own.

    Raises FetchError, UsageError for what is none.
    """
    if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", revision):
        return revision
    if not re.fullmatch(r"[A-Za-z0-9_][\w./+-]{0,200}", revision, re.ASCII):
        raise UsageError(f"{revision!r:.80} is not a commit, a tag or a branch", where=clean(url))
    names = [
        f"refs/{kind}/{revision}{peeled}" for kind in ("tags", "heads") for peeled in ("^{}", "")
    ]
    with TemporaryDirectory(prefix="fatwheel-") as home, _in_time(clean(url)):
        run = subprocess.run(
            git_command("ls-remote", url, *names),
            env=git_environment(Path(home), url, read_pip_config()), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False,
        )  # fmt: skip
    if run.returncode:
        raise FetchError(
            "the repository could not be asked", where=clean(url), details=_said(run.stderr)
        )
    found = dict(line.split("\t", 1)[::-1] for line in run.stdout.splitlines() if "\t" in line)
    for name in names:
        if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", found.get(name, "")):
            return found[name]
    raise FetchError(
        f"the repository has no branch or tag {clean(revision)}",
        where=clean(url),
        hint="an older commit is named by its full id",
    )


# -- objects ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TreeEntry:
    """What a tree has under a name: mode as git writes it, id in hex."""

    mode: str
    name: str
    id: str


class Objects:
    """The objects of a repository, each hashed when it is read."""

    def __init__(self, pipe: subprocess.Popen[bytes]) -> None:
        assert pipe.stdin is not None
        assert pipe.stdout is not None
        self._asked: IO[bytes] = pipe.stdin
        self._answers: IO[bytes] = pipe.stdout

    def tree_of(self, commit: str) -> str:
        """The id of a commit's tree."""
        found = re.match(rb"tree ([0-9a-f]+)\n", self.read(commit, "commit"))
        if not found:
            raise DamagedError(f"{commit} has no tree")
        return found[1].decode()

    def entries(self, tree: str) -> Iterator[TreeEntry]:
        """Raises FormatError for names that no file should have."""
        data, length = self.read(tree, "tree"), len(tree) // 2
        at = 0
        while at < len(data):
            end = data.find(b"\0", at)
            mode, space, name = data[at:end].partition(b" ")
            at = end + 1 + length
            if end < 0 or not space or at > len(data):
                raise DamagedError(f"{tree} is no tree")
            yield TreeEntry(_mode(mode), _checked(name), data[end + 1 : at].hex())

    def read(self, id_: str, kind: str) -> bytes:
        """Raises DamagedError, FormatError for a file that is too large."""
        self._asked.write(f"{id_}\n".encode())
        self._asked.flush()
        header = self._answers.readline(200).split()
        if len(header) != 3 or header[:2] != [id_.encode(), kind.encode()]:
            raise DamagedError(f"there is no {kind} {id_}")
        size = int(header[2])
        if size > MAX_OBJECT:
            raise FormatError(f"a file of the repository has {size} bytes, more than 256 MiB")
        data = self._answers.read(size)
        self._answers.read(1)
        hashed = hashlib.sha256 if len(id_) == 64 else hashlib.sha1
        if hashed(b"%s %d\0" % (kind.encode(), size) + data).hexdigest() != id_:
            raise DamagedError(f"{kind} {id_} has other contents")
        return data


@contextmanager
def opened(folder: Path) -> Iterator[Objects]:
    """The objects of a repository in the cache."""
    with TemporaryDirectory(prefix="fatwheel-") as home:
        pipe = subprocess.Popen(
            git_command(f"--git-dir={folder}", "cat-file", "--batch"),
            env={**git_environment(Path(home)), "GIT_NO_REPLACE_OBJECTS": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield Objects(pipe)
        finally:
            pipe.kill()
            pipe.communicate()


def _mode(raw: bytes) -> str:
    mode = raw.decode("ascii", "replace").lstrip("0")
    if mode not in _KINDS:
        raise FormatError(f"the repository has an entry of unknown kind {mode!r:.40}")
    return mode


def _checked(raw: bytes) -> str:
    """A name that is the same file on any disk, and never git's own."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"the repository has a name that is not UTF-8: {raw[:80]!a}") from error
    strange = re.search(r"[/\\\x00-\x1f\x7f]", name) or PureWindowsPath(name).drive
    if strange or name in ("", ".", "..") or name.lower().rstrip(". ") == ".git":
        raise FormatError(f"the repository has a file that could escape its folder: {name[:80]!r}")
    if len(raw) > MAX_PART:
        raise FormatError(f"the repository has a name of {len(raw)} bytes: {name[:60]!r}...")
    return name


# -- writing files ---------------------------------------------------------------------------------


def write_repository(pins: Repository, cache: Path, root: Path, emit: Emit) -> None:
    """The files of a commit, and of the submodules that are pinned, in the new folder `root`.

    A link within the project becomes a copy of what it names. Raises FetchError, HashMismatchError
    where a tree or a submodule is not the one that is pinned, FormatError for a hostile repository.
    """
    try:
        try:
            left = _written(pins, cache, root, emit)
        except DamagedError:  # what a cache lost, or another disk error changed, is fetched again
            shutil.rmtree(root)
            left = _written(pins, cache, root, emit)
    except DamagedError as error:
        raise FormatError(f"the repository is damaged: {error}", where=_shown(pins)) from error
    except FormatError as error:
        raise error.within(_shown(pins)) from error
    except OSError as error:
        raise files.disk_error(error, "write the source", root, f"{VARIABLE}=FOLDER") from error
    if left:
        listed = clean(", ".join(left))[:300]
        emit(Note(f"submodules that the recipe does not pin are left out: {listed}"))


def _written(pins: Repository, cache: Path, root: Path, emit: Emit) -> list[str]:
    """Write all commits; the places of submodules that are not pinned. Raises DamagedError, and
    then the repository that is damaged is gone from the cache."""
    writer = _Writer(root)
    root.mkdir(parents=True)
    for pin in pins.commits:
        place = pin.path if isinstance(pin, Submodule) else ""
        writer.claim_submodule(place, pin)
        folder = fetch_commit(pin, cache, emit)
        try:
            with opened(folder) as objects:
                writer.write(objects, _tree(objects, pin), PurePosixPath(place))
        except (DamagedError, BrokenPipeError, ValueError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise DamagedError(str(error)) from error
    writer.resolve_links()
    return sorted(writer.submodules)


def _tree(objects: Objects, pin: Commit) -> str:
    """The tree of a commit, which must be the pinned one."""
    tree = objects.tree_of(pin.commit)
    if tree != pin.tree:
        raise HashMismatchError(
            "the commit has another tree than the recipe says",
            where=_shown(pin),
            details=[f"pinned: {pin.tree}", f"has:    {tree}"],
            hint="pin the tree that you have looked at: `git rev-parse COMMIT^{tree}`",
        )
    return tree


class _Writer:
    """A folder that nobody else writes to.

    submodules: commits by their places, that are not claimed yet. links: what each names.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.submodules: dict[str, str] = {}
        self.links: dict[PurePosixPath, str] = {}
        self._left, self._count = MAX_EXPANSION, 0

    def claim_submodule(self, place: str, pin: Commit) -> None:
        """Raise HashMismatchError where the project has another commit at a pinned place."""
        if not place:
            return
        found = self.submodules.pop(place, None)
        if found != pin.commit:
            raise HashMismatchError(
                f"the project has {f'commit {found}' if found else 'no submodule'} at {place}",
                where=_shown(pin),
                hint="pin what the project's commit names: `git ls-tree -r COMMIT`",
            )

    def write(self, objects: Objects, tree: str, place: PurePosixPath) -> None:
        """Write a tree. Raises what reading objects does."""
        if len(place.parts) > MAX_DEPTH:
            raise FormatError(f"the repository is more than {MAX_DEPTH} folders deep")
        (self.root / place).mkdir(exist_ok=True)
        names: set[str] = set()
        for entry in objects.entries(tree):
            if entry.name.lower() in names and os.name == "nt":
                raise FormatError(f"two files differ in capitals only: {place / entry.name}")
            names.add(entry.name.lower())
            self._claim(0)
            path = place / entry.name
            if entry.mode == _FOLDER:
                self.write(objects, entry.id, path)
            elif entry.mode == _SUBMODULE:
                self.submodules[str(path)] = entry.id
                (self.root / path).mkdir(exist_ok=True)
            else:
                self._keep(path, entry.mode, objects.read(entry.id, "blob"))

    def _keep(self, path: PurePosixPath, mode: str, data: bytes) -> None:
        if mode == _LINK:
            self.links[path] = os.fsdecode(data)
            return
        self._claim(len(data))
        put(self.root / path, data, executable=mode == _PROGRAM)

    def _claim(self, size: int) -> None:
        self._count += 1
        self._left -= size
        if self._count > MAX_MEMBERS or self._left < 0:
            raise FormatError(f"the repository holds more than {MAX_MEMBERS} files or 4 GiB")

    def resolve_links(self) -> None:
        """Copy what links within the project name, those that name links too. A link to nothing
        stays out, as a checkout's would lead nowhere."""
        below: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        for path in self.links:
            for folder in path.parents:
                below[folder].append(path)
        done: set[PurePosixPath] = set()
        for path in self.links:
            self._resolve(path, (), done, below)

    def _resolve(
        self,
        path: PurePosixPath,
        outer: tuple[PurePosixPath, ...],
        done: set[PurePosixPath],
        below: Mapping[PurePosixPath, Sequence[PurePosixPath]],
    ) -> None:
        """Copy what a link names: of a folder all that links in there name, too. outer: the links
        that wait for it."""
        if path in outer or len(outer) > _MOST_LINKS:
            raise FormatError(f"a link names a folder that it is in: {str(path)!r:.80}")
        if path in done:
            return
        target = self._target(path, {path})
        origin = self.root / target if target else None
        if target and origin and origin.is_dir():
            if target in (path, *path.parents):
                raise FormatError(f"a link names a folder that it is in: {str(path)!r:.80}")
            for link in below.get(target, ()):
                self._claim(0)
                self._resolve(link, (*outer, path), done, below)
            for file in sorted(origin.rglob("*")):
                if file.is_file():
                    self._copy(file, self.root / path / file.relative_to(origin))
                else:
                    self._claim(0)
        elif origin and origin.is_file():
            self._copy(origin, self.root / path)
        done.add(path)

    def _copy(self, origin: Path, path: Path) -> None:
        self._claim(origin.stat().st_size)
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, origin.read_bytes(), executable=bool(origin.stat().st_mode & 0o100))

    def _target(self, path: PurePosixPath, seen: set[PurePosixPath]) -> PurePosixPath | None:
        """Where a link leads to in the end; FormatError where that is outside of the project."""
        text = self.links[path]
        target = PurePosixPath(os.path.normpath(str(path.parent / text)))
        outside = PurePosixPath(text).is_absolute() or target.parts[:1] == ("..",)
        if len(seen) > _MOST_LINKS:
            return None
        if outside or "\0" in text or "\\" in text:
            raise FormatError(
                f"a link in the repository leads out of it: {str(path)!r:.80} to {text!r:.80}",
                hint="use a folder without it, or a checkout: docs/recipes.md",
            )
        for part in (target, *target.parents):
            if part in self.links:
                if part in seen:
                    return None
                onward = self._target(part, seen | {part})
                return onward and onward / target.relative_to(part)
        return target


def put(path: Path, data: bytes, *, executable: bool) -> None:
    """A new file, with the time that all files of a source have for which there is none."""
    with path.open("xb") as out:
        out.write(data)
    path.chmod(0o755 if executable else 0o644)
    os.utime(path, (FIRST_TIME, FIRST_TIME))


# -- checkouts -------------------------------------------------------------------------------------


def listed(folder: Path, *which: str) -> Sequence[str]:
    """What git lists of a folder of a checkout (git-ls-files).

    Raises FormatError where git fails, FetchError where it does not end.
    """
    with TemporaryDirectory(prefix="fatwheel-") as home, _in_time(str(folder)):
        run = subprocess.run(
            git_command("-C", str(folder), "ls-files", "-z", "--exclude-standard", *which),
            env=git_environment(Path(home)), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
    if run.returncode:
        raise FormatError(
            "git cannot list the checkout", where=str(folder),
            details=_said(run.stderr.decode(errors="replace")),
        )  # fmt: skip
    return tuple(dict.fromkeys(map(os.fsdecode, filter(None, run.stdout.split(b"\0")))))
