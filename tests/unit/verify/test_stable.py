"""Claims of a stable ABI, from names that binaries ask for. Those of Python are known from
CPython's documentation, those of torch from its headers' TORCH_FEATURE_VERSION guards."""

from __future__ import annotations

import time

import pytest

from fatwheel.fatbin.binary import AskedSymbol
from fatwheel.verify.contents import Contents
from fatwheel.verify.evidence import Evidence, Examined, Finding
from fatwheel.verify.libraries import TorchUse, lowest_torch, torch_functions, torch_use
from fatwheel.verify.stable import abi_findings, limited_api
from fatwheel.wheels.metadata import read_record

OLD = "aoti_torch_get_dtype"  # of 2.9 and before
NEW = "torch_call_dispatcher"  # under TORCH_FEATURE_VERSION >= TORCH_VERSION_2_10_0
NEWER = "torch_from_blob"  # the same with 2.11
CPP = "_ZN2at4_ops5empty4callEv"


def binary(
    *names: str, path: str = "a/_C.abi3.so", imports: tuple[str, ...] = (), library: str = ""
) -> Examined:
    asked = tuple(AskedSymbol(name, library) for name in names)
    contents = Contents(path, "elf", "x86_64", 0, (), ())
    return Examined(contents, True, imports, frozenset(), (), asked=asked)


def of_torch(*names: str, path: str = "a/_C.so") -> Examined:
    return binary(*names, path=path, imports=("libtorch.so", "libc.so.6"))


def findings(
    *binaries: Examined, tag: str = "cp310-abi3", version: str = "1.0", requires: str = ""
) -> list[Finding]:
    name = f"a-{version}-{tag}-linux_x86_64.whl"
    metadata = f"Metadata-Version: 2.1\nName: a\nVersion: {version}\n{requires}".encode()
    return list(
        abi_findings(
            Evidence(
                name, "a", version, (f"{tag}-linux_x86_64",), f"a-{version}.dist-info", metadata,
                b"", read_record("RECORD", b""), {}, binaries, (),
            )
        )
    )  # fmt: skip


# -- Python ----------------------------------------------------------------------------------------


def test_a_module_of_the_limited_api_is_told_to_be_so() -> None:
    names = ("PyModule_Create2", "_Py_NoneStruct", "_Py_Dealloc", "PyExc_ValueError", "printf")
    [found] = findings(binary(*names))
    assert (found.severity, found.where) == ("note", "a/_C.abi3.so")
    assert found.what == "it keeps to the limited API of Python 3.10"


def test_names_outside_the_limited_api_are_wrong() -> None:
    """A list's items are reached by macros that are not part of it."""
    [found] = findings(binary("PyModule_Create2", "_PyUnicode_Ready", "PyUnicode_AsUTF8"))
    assert found.severity == "wrong"
    assert found.details == ("_PyUnicode_Ready", "PyUnicode_AsUTF8")


def test_names_that_only_a_newer_python_has_are_wrong() -> None:
    """PyBuffer_Release came into it with 3.11 (documentation: "Part of the Stable ABI since")."""
    [found] = findings(binary("PyModule_Create2", "PyBuffer_Release"))
    assert found.severity == "wrong"
    assert found.what == "the wheel's tag says Python 3.10 or newer, but it needs 3.11"
    assert found.details == ("PyBuffer_Release: Python 3.11",)
    assert [one.severity for one in findings(binary("PyBuffer_Release"), tag="cp311-abi3")] == [
        "note"
    ]


@pytest.mark.parametrize(
    "found",
    [
        findings(binary("PyUnicode_AsUTF8"), tag="cp310-cp310"),
        findings(binary("PyUnicode_AsUTF8"), tag="py3-none"),
        findings(binary("PyUnicode_AsUTF8", path="a/_C.cpython-310-x86_64-linux-gnu.so")),
        findings(binary("printf", "Pyramid", "_ZN2Py4boolEv")),
        findings(binary("PyUnicode_AsUTF8", library="other.dll")),
    ],
)
def test_what_promises_nothing_breaks_no_promise(found: list[Finding]) -> None:
    assert found == []


def test_names_of_windows_are_those_that_python_has() -> None:
    [found] = findings(binary("PyUnicode_AsUTF8", path="a/_C.pyd", library="python3.dll"))
    assert found.severity == "wrong"


def test_the_list_is_that_of_cpython() -> None:
    assert limited_api()["PyType_GetModuleState"] == (3, 10)
    assert "PyList_SET_ITEM" not in limited_api()


# -- torch -----------------------------------------------------------------------------------------


def test_a_library_works_with_the_first_torch_that_has_its_functions() -> None:
    [found] = findings(of_torch(OLD, NEW, "cudaLaunchKernel"), tag="cp311-cp311")
    assert found == Finding(
        "note", "of torch it uses the stable ABI alone: torch 2.10 or newer", "a/_C.so"
    )
    for names, lowest in (((OLD,), "2.9"), ((OLD, NEW), "2.10"), ((NEWER, NEW), "2.11")):
        use = torch_use(("libtorch_cpu.so",), [AskedSymbol(name) for name in names])
        assert use is not None
        assert use.lowest == lowest


@pytest.mark.parametrize(
    "name",
    [
        CPP,
        "_ZN3c1015SmallVectorBaseIjE8grow_podEPKvmm",
        "_ZNK5torch8autograd4Node4nameEv",
        "_ZTIN3c105ErrorE",
        "?empty@_ops@at@@SAXXZ",
        "THPVariableClass",
    ],
)
def test_names_in_cpp_bind_a_library_to_one_torch(name: str) -> None:
    [found] = findings(of_torch(OLD, name))
    assert found.severity == "note"
    assert found.what.startswith("it fits only the torch that it was built with: it uses 1 name")
    assert found.details == (name,)
    use = torch_use(("libtorch.so",), [AskedSymbol(OLD), AskedSymbol(name)])
    assert lowest_torch([use]) is None


@pytest.mark.parametrize(
    "name", ["_ZNSt6vectorIiE5clearEv", "_ZN4cute3mmaEv", "_ZN12at_somethingE"]
)
def test_other_names_in_cpp_do_not(name: str) -> None:
    [found] = findings(of_torch(OLD, name))
    assert found.what.endswith("torch 2.9 or newer")


def test_a_name_of_a_megabyte_is_read_once() -> None:
    for name in ("_Z" + "a2at" * 200_000 + "!", "?" + "@at@@" * 200_000 + "\n"):
        started = time.monotonic()
        assert torch_use(("libtorch.so",), [AskedSymbol(name)]) == TorchUse((), (name,))
        assert time.monotonic() - started < 5


def test_many_requirements_are_one_finding_for_each_library() -> None:
    requires = "".join(f"Requires-Dist: torch>=2.9,!=2.9.{n}\n" for n in range(1, 1000))
    found = findings(*(of_torch(NEW, path=f"a/{n}.so") for n in range(20)), requires=requires)
    warnings = [one for one in found if one.severity == "warning"]
    assert [one.where for one in warnings] == [f"a/{n}.so" for n in range(20)]
    assert warnings[0].what == "METADATA allows torch 2.9, it uses functions of 2.10"


def test_functions_that_are_not_known_leave_it_open() -> None:
    [found] = findings(of_torch(OLD, "aoti_torch_cuda_mm_out"))
    assert found.severity == "note"
    assert found.details == ("aoti_torch_cuda_mm_out",)
    assert lowest_torch([torch_use(("libtorch.so",), [AskedSymbol("torch_of_tomorrow")])]) is None


def test_libraries_that_need_no_torch_do_not_count() -> None:
    assert torch_use(("libc.so.6",), [AskedSymbol(CPP)]) is None
    use = torch_use(
        ("c10.dll", "other.dll"), [AskedSymbol(CPP, "other.dll"), AskedSymbol(OLD, "c10.dll")]
    )
    assert use is not None
    assert not use.bound
    assert lowest_torch([None, use]) == "2.9"
    assert lowest_torch([None]) is None


def test_all_libraries_of_a_wheel_count() -> None:
    uses = [torch_use(("libtorch.so",), [AskedSymbol(name)]) for name in (OLD, NEWER, NEW)]
    assert lowest_torch(uses) == "2.11"  # and not the one that comes last as text, 2.9
    assert lowest_torch([*uses, torch_use(("libtorch.so",), [AskedSymbol(CPP)])]) is None


def test_a_label_with_an_older_torch_is_wrong() -> None:
    _, found = findings(of_torch(NEW), version="1.0+cu130torch2.9.sm80")
    assert (found.severity, found.details) == ("wrong", (NEW,))
    assert found.what == "the version says torch 2.9, it uses functions of 2.10"


def test_a_label_with_a_newer_torch_than_needed_is_told() -> None:
    _, found = findings(of_torch(OLD, NEW), version="1.0+cu130torch2.11.sm80")
    assert found.severity == "note"
    assert found.what == "the version says torch 2.11, though it works with 2.10 already"
    assert len(findings(of_torch(OLD, NEW), version="1.0+cu130torch2.10.sm80")) == 1


@pytest.mark.parametrize(
    ("requires", "warned"),
    [
        ("Requires-Dist: torch>=2.9\n", True),
        ("Requires-Dist: torch>=2.10\n", False),
        ("Requires-Dist: torch==2.10.0\n", False),
        ("Requires-Dist: torch\n", False),
        ("Requires-Dist: torchvision>=0.1\n", False),
        ("Requires-Dist: ???\n", False),
        (f"Requires-Dist: torch>={'9' * 5000}\n", False),
    ],
)
def test_requirements_that_take_an_older_torch_are_warned_of(requires: str, warned: bool) -> None:
    found = findings(of_torch(NEW), requires=requires)[1:]
    assert [one.severity for one in found] == ["warning"] * warned


def test_the_functions_are_listed_once() -> None:
    assert torch_functions()[OLD] == "2.9"
    assert torch_functions()[NEW] == "2.10"
    assert torch_functions()[NEWER] == "2.11"
