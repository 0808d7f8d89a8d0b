"""Builds fatwheel_abi3: a kernel, and its registration by torch's stable ABI alone."""

import importlib.util
import os
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA = Path(os.environ["CUDA_HOME"])
TORCH = Path(importlib.util.find_spec("torch").origin).parent  # without importing it
NVCC = [str(CUDA / "bin" / "nvcc"), "-Xcompiler", "-fPIC", "-gencode", "arch=compute_75,code=sm_75"]
CXX = [
    os.environ["CXX"], "-std=c++17", "-fPIC", f"-I{sysconfig.get_path('include')}",
    f"-I{TORCH / 'include'}", "-DPy_LIMITED_API=0x030A0000",
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
]  # fmt: skip
LIBRARIES = [f"-L{CUDA / 'lib64'}", "-lcudart", f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-ltorch"]


class Build(build_ext):
    def build_extension(self, ext):
        objects = []
        for source in ext.sources:
            objects.append(Path(self.build_temp, source).with_suffix(".o"))
            objects[-1].parent.mkdir(parents=True, exist_ok=True)
            tool = NVCC if source.endswith(".cu") else CXX
            subprocess.check_call([*tool, "-c", source, "-o", objects[-1]])
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        subprocess.check_call([CXX[0], "-shared", *objects, *LIBRARIES, "-o", library])


setup(
    name="fatwheel-abi3",
    version="1.0",
    packages=["fatwheel_abi3"],
    install_requires=["torch>=2.10"],
    ext_modules=[
        Extension("fatwheel_abi3._C", ["csrc/ops.cpp", "csrc/triple.cu"], py_limited_api=True)
    ],
    cmdclass={"build_ext": Build},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
