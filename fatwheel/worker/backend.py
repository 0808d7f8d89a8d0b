"""Runs a project's PEP 517 back end; started by file name in the environment's own Python.

Arguments: the project's folder, the back end (`module:object`), its backend-path entries joined
by os.pathsep (may be empty), the folder for the wheel, and, but for Windows, the number of a file
descriptor: when that comes to its end the build is gone, and this process ends with all that it
started. The wheel's name goes to a file `name` in that folder. Standard library only, and nothing
of fatwheel.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from typing import Any

STORED = {"--build-option": ["--compression=stored"]}


def main() -> None:
    project, backend, paths, out, *descriptors = sys.argv[1:]
    for descriptor in descriptors:
        threading.Thread(target=end_with, args=(int(descriptor),), daemon=True).start()
    os.chdir(project)
    list_folders_by_name()
    # Where this file lies is not where the project's modules are.
    sys.path[:1] = [os.path.join(project, path) for path in paths.split(os.pathsep) if path]
    module, _, attribute = backend.partition(":")
    hooks = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        hooks = getattr(hooks, part)
    # fatwheel compresses the wheel itself, once it has the right names.
    options = {"config_settings": STORED} if module == "setuptools.build_meta" else {}
    name = hooks.build_wheel(out, **options)
    with open(os.path.join(out, "name"), "w", encoding="utf-8") as stream:
        stream.write(name)


def list_folders_by_name() -> None:
    """Let this process see files in the order of their names.

    A file system has an order of its own, which glob passes on: objects are linked, and sources
    named, in the order in which a setup.py finds them.
    """
    listdir, scandir = os.listdir, os.scandir
    os.listdir = lambda *folder: sorted(listdir(*folder))  # type: ignore[assignment]
    os.scandir = lambda *folder: Entries(scandir(*folder))  # type: ignore[assignment]


class Entries:
    """What os.scandir gives, by name."""

    def __init__(self, found: Any) -> None:
        with found:
            self._entries = iter(sorted(found, key=lambda entry: entry.name))

    def __iter__(self) -> Entries:
        return self

    def __next__(self) -> os.DirEntry[Any]:
        return next(self._entries)

    def __enter__(self) -> Entries:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())


if sys.platform != "win32":

    def end_with(descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        os.read(descriptor, 1)
        os.killpg(0, signal.SIGKILL)

else:

    def end_with(descriptor: int) -> None:
        raise NotImplementedError("a job object does this")


if __name__ == "__main__":
    main()
