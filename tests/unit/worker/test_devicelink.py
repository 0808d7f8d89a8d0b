"""Links of device code, by a stand-in for nvcc; tests/integration/test_linked_code.py has the real
one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.compilers.commands import DeviceLink
from fatwheel.errors import CompileError
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.worker.devicelink import Linked, images_of, link_device_code

from ...helpers.deviceimages import compute, container, sm
from ...helpers.standins import calls, front, make_context

FRONTS = (front("80", "sm_80", "compute_80"), front("86"))


class Project:
    """A build folder with objects, and a context to link them in."""

    def __init__(self, folder: Path, tool: Callable[[str], str]) -> None:
        self.folder, self.tool = folder, tool
        self.context = make_context(folder)
        self.build = folder / "build"
        self.build.mkdir()

    def obj(self, name: str, more: str = "", section: str = "__nv_relfatbin") -> str:
        """An object with relocatable images for 80 and 86, and PTX."""
        source = self.build / f"{name}.s"
        fatbin = self.folder / "code.fatbin"
        fatbin.write_bytes(container(sm(80), sm(86), compute(80)))
        source.write_text(f'.section {section},"a"\n.incbin "{fatbin}"\n.data\n.ascii "{more}"\n')
        out = self.build / f"{name}.o"
        subprocess.run([self.tool("as"), source, "-o", out], check=True)
        return str(out)

    def archive(self, name: str, *objects: str, flags: str = "rcs") -> str:
        path = self.build / f"lib{name}.a"
        path.unlink(missing_ok=True)
        subprocess.run([self.tool("ar"), flags, path, *objects], check=True)
        return str(path)

    def link(
        self, *inputs: str, libraries: tuple[str, ...] = (), by_variable: bool = False
    ) -> Linked | None:
        """by_variable: whether LIBRARY_PATH names the build folder, and the command does not."""
        named = () if by_variable else (str(self.build),)
        command = DeviceLink(
            str(self.build / "linked.o"), True, inputs, libraries,
            (*named, f"{self.folder}/site/lib"), ("-O3",), "",
            library_path=(f"{self.folder}/nowhere", str(self.build)) if by_variable else (),
        )  # fmt: skip
        marks = ((str(self.folder / "site"), "site"), (str(self.folder), "src"))
        context = self.context
        return link_device_code(context, context.store(), command, "linked", marks, FRONTS)

    def calls(self) -> list[list[str]]:
        return sorted(calls(self.folder / "cuda"))


@pytest.fixture
def project(tmp_path: Path, tool: Callable[[str], str]) -> Project:
    return Project(tmp_path, tool)


def test_relocatable_images_are_found_in_objects_and_libraries(project: Project) -> None:
    obj = project.obj("a")
    assert images_of([obj]) == {"sm_80", "sm_86", "compute_80"}
    assert images_of([project.archive("whole", obj)]) == images_of([obj])
    assert images_of([project.archive("thin", obj, flags="rcsT")]) == images_of([obj])
    (project.build / "text.o").write_text("no object")
    others = [project.obj("b", section=".nv_fatbin"), str(project.build / "text.o"), "/nowhere.a"]
    assert images_of(others) == frozenset()


def test_what_has_no_relocatable_code_is_left_to_the_projects_own_command(
    project: Project,
) -> None:
    assert project.link(project.obj("a", section=".nv_fatbin")) is None
    assert project.calls() == []


def test_each_architecture_is_linked_apart_and_what_is_linked_is_kept(project: Project) -> None:
    obj = project.obj("a")
    made = project.link(obj, libraries=("m",))
    assert made is not None
    assert [image_name(entry) for entry in slices_of(made.data)] == ["sm_80", "sm_86"]
    assert list(made.slices) == ["sm_80", "sm_86"]
    for call, arch in zip(project.calls(), ("80", "86"), strict=True):
        assert call[call.index("-gencode") + 1] == f"arch=compute_{arch},code=sm_{arch}"
        assert call[call.index("-Xnvlink") + 1] == "-report-arch"
        # What nvlink writes into images is the same wherever the project lies.
        assert "in/0/a.o" in call
        assert "-Llib/0" in call
        assert not any(str(project.build) in word for word in call)
    assert project.link(obj, libraries=("m",)) == made
    assert len(project.calls()) == 2, "what was kept was linked again"


def test_everything_that_is_linked_decides_what_is_kept(project: Project) -> None:
    """Also members of a thin library, which only names them, and what -l finds, whether a command
    or LIBRARY_PATH says where."""
    obj, member = project.obj("a"), project.obj("member")
    thin = project.archive("thin", member, flags="rcsT")
    project.archive("found", member)
    count = 0
    for by_variable in (False, True):
        for change in ("", "a", "member", "found"):
            if change in ("a", "member"):
                project.obj(change, more=f"changed {by_variable}")
            if change == "found":
                project.archive("found", obj, *([member] if by_variable else []))
            project.link(obj, thin, libraries=("found",), by_variable=by_variable)
            project.link(obj, thin, libraries=("found",), by_variable=by_variable)
            count += 2
            assert len(project.calls()) == count, f"after a change of {change}"


def test_a_link_that_fails_names_architecture_and_objects(project: Project) -> None:
    words = "nvlink error   : Undefined reference to 'f' in 'in/0/a.o'"
    obj = project.obj("a", more=f"// stand-in: says {words}\\n")
    with pytest.raises(CompileError) as caught:
        project.link(obj)
    assert caught.value.what == "the device code does not link for sm_80"
    assert caught.value.where == "linked"
    assert caught.value.details == ("nvlink error   : Undefined reference to 'f' in 'a.o'",)
    assert "sm_80" in (caught.value.hint or "")
    assert os.listdir(project.folder / "scratch") == []
