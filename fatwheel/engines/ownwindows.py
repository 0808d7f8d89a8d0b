"""Windows programs on Windows itself, as the user. This module is empty on other systems."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import os
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import ExitStack, contextmanager, suppress
    from dataclasses import dataclass
    from pathlib import Path, PureWindowsPath

    from ..errors import StoreError
    from ..events import Emit, Note
    from ..machine import memory_below
    from ..storage import files
    from ..worker import jobobjects, wine
    from ..worker.programs import show_at
    from ..worker.roots import VIEW_ROOT, remove_tree, view_root

    # What programs see of the user's variables: nothing that compilers would take for options.
    _KEPT = (
        "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "OS", "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
    )  # fmt: skip
    _FLAGS = (
        subprocess.CREATE_NO_WINDOW
        | subprocess.CREATE_NEW_PROCESS_GROUP  # Ctrl-C reaches the build, which ends it
        | 0x4  # CREATE_SUSPENDED: it must be in its group before it starts others
    )

    @contextmanager
    def held(name: str, emit: Emit) -> Iterator[OwnWindows]:
        """This machine's Windows, with a folder for one build. Raises StoreError, and what emit
        does where another build is there."""
        wine.start_again_what_is_lost()
        place = VIEW_ROOT / name
        note = Note(f"another build is at work in {place}: waiting for it")
        with ExitStack() as stack:
            try:
                lock = view_root() / f"{name}.lock"
                stack.enter_context(files.locked(lock, waiting=lambda: emit(note)))
                (place / "temp").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"builds of this project need a folder: {error.strerror}",
                    where=str(place),
                    hint=f"ask an administrator to remove {VIEW_ROOT}",
                ) from error
            yield OwnWindows(PureWindowsPath(place))

    @dataclass(frozen=True)
    class OwnWindows:
        """See `programs.System`."""

        place: PureWindowsPath

        def path(self, path: Path) -> str:
            return str(path)

        def real(self, path: PureWindowsPath) -> Path:
            return Path(path)

        def show(self, folder: Path, name: str) -> str:
            shown = self.real(self.place / name)
            with suppress(FileNotFoundError):
                _forget(shown)
            show_at(shown, folder)
            return str(shown)

        def start(self, command: Sequence[str], memory: int) -> Started:
            group = jobobjects.Group(memory)
            try:
                process = _suspended(command, self._variables())
                handle = int(process._handle)  # type: ignore[attr-defined]
                group.add(handle)
                jobobjects.resume(handle)
            except BaseException:
                group.close()
                raise
            return Started(process, group)

        def _variables(self) -> dict[str, str]:
            kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
            system = kept.get("SYSTEMROOT", r"C:\Windows")
            temp = str(self.place / "temp")
            path = os.pathsep.join([rf"{system}\System32", system])
            return {**kept, "PATH": path, "TEMP": temp, "TMP": temp}

    @dataclass(frozen=True)
    class Started:
        """A program in a job object, which ends with this process at the latest."""

        process: subprocess.Popen[bytes]
        group: jobobjects.Group

        def memory(self) -> int:
            return memory_below(self.process.pid)

        def end(self) -> None:
            self.group.end()

        def close(self) -> None:
            self.group.close()

    def _suspended(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, creationflags=_FLAGS,
        )  # fmt: skip

    def _forget(shown: Path) -> None:
        """Remove what `show_at` made: a junction, but not what it leads to; or a copy."""
        try:
            shown.rmdir()
        except OSError:
            remove_tree(shown)
