"""Runs a project's PEP 517 back end; started by file name in the environment's own Python.

Arguments: the project's folder, the back end (`module:object`), its backend-path entries joined
by os.pathsep (may be empty), the folder for the wheel, a JSON object with `settings` (PEP 517's
config_settings) and `pretend` (a compute capability, `8.9`, or ''), and, but for Windows, the
number of a file descriptor: when that comes to its end the build is gone, and this process ends
with all that it started. The wheel's name goes to a file `name` in that folder, and a list of the
settings that the back end did not ask for to `ignored`. Standard library only, and nothing of
fatwheel.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

# fatwheel compresses the wheel itself, once it has the right names.
OPTION, STORED = "--build-option", "--compression=stored"


def main() -> None:
    project, backend, paths, out, more, *descriptors = sys.argv[1:]
    asked = json.loads(more)
    for descriptor in descriptors:
        threading.Thread(target=end_with, args=(int(descriptor),), daemon=True).start()
    os.chdir(project)
    list_folders_by_name()
    if asked["pretend"]:
        sys.meta_path.insert(0, Pretence(asked["pretend"]))
    # Where this file lies is not where the project's modules are.
    sys.path[:1] = [os.path.join(project, path) for path in paths.split(os.pathsep) if path]
    module, _, attribute = backend.partition(":")
    hooks = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        hooks = getattr(hooks, part)
    settings: dict[str, str] = asked["settings"]
    if module == "setuptools.build_meta":
        settings = {**settings, OPTION: f"{STORED} {settings.get(OPTION, '')}".strip()}
    watched = WatchedSettings(settings)
    name = hooks.build_wheel(out, **({"config_settings": watched} if settings else {}))
    ignored = sorted(asked["settings"].keys() - watched.asked)
    for file, text in (("ignored", json.dumps(ignored)), ("name", name)):
        with open(os.path.join(out, file), "w", encoding="utf-8") as stream:
            stream.write(text)


class WatchedSettings(dict):  # type: ignore[type-arg]
    """Settings, and the names of those that were asked for; who goes through them asks for all."""

    def __init__(self, settings: dict[str, str]) -> None:
        super().__init__(settings)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)  # type: ignore[no-any-return]

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self.asked.add(name)
        return super().pop(name, *default)

    def __iter__(self) -> Iterator[str]:
        self.asked.update(self.keys())
        return super().__iter__()

    def items(self) -> Any:
        self.asked.update(self.keys())
        return super().items()


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


class Pretence(importlib.machinery.PathFinder):
    """Imports torch.cuda as if there were a GPU, for a setup.py that asks what to compile for.

    What it answers is what such files ask; whoever uses the GPU fails, as without this.
    """

    def __init__(self, capability: str) -> None:
        major, _, minor = capability.partition(".")
        self.capability = int(major), int(minor)

    def find_spec(  # type: ignore[override]
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torch.cuda":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        loader: Any = spec and spec.loader
        if loader is None:
            return spec
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            self.change(module)

        loader.exec_module = exec_module
        return spec

    def change(self, cuda: Any) -> None:
        major, minor = self.capability
        name = f"a GPU of compute capability {major}.{minor}"
        properties = SimpleNamespace(
            name=name, major=major, minor=minor, total_memory=1 << 34, multi_processor_count=1
        )
        cuda.is_available = lambda: True
        cuda.device_count = lambda: 1
        cuda.current_device = lambda: 0
        cuda.get_device_capability = lambda device=None: (major, minor)
        cuda.get_device_name = lambda device=None: name
        cuda.get_device_properties = lambda device=None: properties


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
