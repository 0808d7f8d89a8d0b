"""What nvcc 13.0.88 lists for `nvcc --dryrun --keep --keep-dir keep`, its folders shortened."""

from __future__ import annotations

import shlex

import pytest

from fatwheel.compilers.dryrun import read_listing

PATHS = """
#$ _NVVM_BRANCH_=nvvm
#$ _SPACE_= 
#$ TOP=/cuda/bin/..
#$ CICC_PATH=/cuda/bin/../nvvm/bin
#$ LD_LIBRARY_PATH=/cuda/bin/../lib:
#$ PATH=/cuda/bin/../nvvm/bin:/cuda/bin:/usr/bin
#$ INCLUDES="-I/cuda/bin/..//include"  
#$ CUDAFE_FLAGS=
"""
FRONT = """
#$ gcc -D__CUDA_ARCH__=800 -E -x c++ -m64 "a.cu" -o "keep/a.cpp1.ii" 
#$ "$CICC_PATH/cicc" --c++17 -arch compute_80 --module_id_file_name "keep/a.module_id" \
--stub_file_name "keep/a.cudafe1.stub.c" "keep/a.cpp1.ii" -o "keep/a.ptx"
""".replace("\\\n", "")
DEVICE = """
#$ ptxas -arch=sm_80 -m64  -maxrregcount=64 "keep/a.ptx"  -o "keep/a.sm_80.cubin" 
#$ ptxas -arch=sm_86 -m64  -maxrregcount=64 "keep/a.ptx"  -o "keep/a.sm_86.cubin" 
#$ fatbinary --create="output" -64 --cmdline="-maxrregcount=64 " \
"--image3=kind=elf,sm=80,file=keep/a.sm_80.cubin" \
"--image3=kind=elf,sm=86,file=keep/a.sm_86.cubin" "--image3=kind=ptx,sm=80,file=keep/a.ptx" 
""".replace("\\\n", "")
HOST_FIRST = """
#$ gcc -E -x c++ -D__CUDACC__ -m64 "a.cu" -o "keep/a.cpp4.ii" 
#$ cudafe++ --m64 --stub_file_name "a.cudafe1.stub.c" "keep/a.cpp4.ii" 
"""
HOST_LAST = """
#$ fatbinary --create="keep/a.fatbin" -64 "--image3=kind=ptx,sm=80,file=keep/a.ptx" \
--embedded-fatbin="keep/a.fatbin.c" 
#$ gcc -D__CUDA_ARCH__=800 -c -x c++ -m64 "keep/a.cudafe1.cpp" -o "a.o" 
""".replace("\\\n", "")


def test_the_variables_of_steps() -> None:
    found = dict(read_listing(PATHS + FRONT).variables)
    assert found == {
        "CICC_PATH": "/cuda/bin/../nvvm/bin",
        "LD_LIBRARY_PATH": "/cuda/bin/../lib:",
        "PATH": "/cuda/bin/../nvvm/bin:/cuda/bin:/usr/bin",
    }


def test_what_a_front_leaves() -> None:
    front = read_listing(PATHS + FRONT + DEVICE).front()
    assert (front.ptx, front.stub) == ("keep/a.ptx", "keep/a.cudafe1.stub.c")


def test_the_steps_to_one_image_are_nvccs_own_without_the_others() -> None:
    ptxas, fatbinary = read_listing(PATHS + FRONT + DEVICE).device_steps(["sm_86"])
    assert shlex.split(ptxas) == [
        "ptxas", "-arch=sm_86", "-m64", "-maxrregcount=64", "keep/a.ptx", "-o",
        "keep/a.sm_86.cubin",
    ]  # fmt: skip
    assert shlex.split(fatbinary) == [
        "fatbinary", "--create=output", "-64", "--cmdline=-maxrregcount=64 ",
        "--image3=kind=elf,sm=86,file=keep/a.sm_86.cubin",
    ]  # fmt: skip


def test_ptx_is_only_packed() -> None:
    [fatbinary] = read_listing(PATHS + FRONT + DEVICE).device_steps(["compute_80"])
    words = shlex.split(fatbinary)
    assert words[-1] == "--image3=kind=ptx,sm=80,file=keep/a.ptx"
    assert len(words) == 5


def test_the_steps_to_a_host_object_leave_the_front_out() -> None:
    listing = read_listing(PATHS + HOST_FIRST + FRONT + HOST_LAST)
    steps = listing.host_steps()
    assert [step.split()[0] for step in steps] == ["gcc", "cudafe++", "fatbinary", "gcc"]
    assert [shlex.split(steps[place])[-1] for place in (0, -1)] == ["keep/a.cpp4.ii", "a.o"]


def test_what_is_the_shells_is_left_to_it() -> None:
    """nvcc runs its steps by a shell: `-DA="x$HOME"` is what HOME is."""
    line = r'''gcc -E -D "A=\"x$HOME\"" "a.cu" -o "keep/a.cpp4.ii"'''
    assert read_listing(f"#$ {line}").host_steps() == [line]


def test_a_device_program_is_read_without_optimising_it() -> None:
    preprocess, front = read_listing(PATHS + HOST_FIRST + FRONT + DEVICE).program_steps()
    assert preprocess.rstrip().endswith('-o "keep/a.cpp1.ii"')
    assert front.startswith('"$CICC_PATH/cicc" ')
    assert front.split()[-3:] == ["-o", '"keep/a.ptx"', "-lto"]
    for more in (FRONT, ""):
        with pytest.raises(ValueError, match="values to unpack"):
            read_listing(PATHS + more + more).program_steps()


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (PATHS + FRONT + DEVICE, ["sm_89"]),  # not asked for
        (PATHS + DEVICE, ["sm_80"]),  # no front
        (PATHS + FRONT + FRONT + DEVICE, ["sm_80"]),  # two
        (PATHS + FRONT, ["sm_80"]),
        ("nvcc fatal   : Unknown option '-x'", ["sm_80"]),
        ("", ["compute_80"]),
        ('#$ cicc "', ["sm_80"]),
    ],
)
def test_what_is_listed_otherwise_is_an_error(text: str, codes: list[str]) -> None:
    with pytest.raises(ValueError, match=r"values to unpack|closing quotation"):
        read_listing(text).device_steps(codes)
