"""Builds fatwheel_sample: two extensions, made in part of the same sources with other flags."""

import os
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA = Path(os.environ["CUDA_HOME"])
NVCC = [str(CUDA / "bin" / "nvcc"), "-Xcompiler", "-fPIC", "-gencode", "arch=compute_75,code=sm_75"]
# Keeps nvcc from including what it includes before and after a source: see csrc/short.h.
SHORT = ["-D__CUDA_RUNTIME_H__", "-Xcompiler", "-D__COMMON_FUNCTIONS_H__"]
CXX = [os.environ["CXX"], "-g", "-fPIC", f"-I{sysconfig.get_path('include')}"]
FLAGS = {"_cases": ["-DFACTOR=2"], "_lines": ["-DFACTOR=3", "-lineinfo"]}


class Build(build_ext):
    def build_extension(self, ext):
        name = ext.name.rpartition(".")[2]
        objects = []
        for source in ext.sources:
            objects.append(Path(self.build_temp, name, source).with_suffix(".o"))
            objects[-1].parent.mkdir(parents=True, exist_ok=True)
            tool = [*NVCC, *FLAGS[name]] if source.endswith(".cu") else [*CXX, f"-DNAME={name}"]
            if "short.h" in Path(source).read_text():
                tool += SHORT
            subprocess.check_call([*tool, "-c", source, "-o", objects[-1]])
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        subprocess.check_call(
            [*CXX, "-shared", *objects, f"-L{CUDA / 'lib64'}", "-lcudart", "-o", library]
        )


setup(
    name="fatwheel-sample",
    version="1.0",
    packages=["fatwheel_sample"],
    ext_modules=[
        Extension(
            "fatwheel_sample._cases",
            ["csrc/module.cpp", "csrc/scaled.cu", "csrc/listed.cu"],
        ),
        Extension("fatwheel_sample._lines", ["csrc/module.cpp", "csrc/scaled.cu"]),
    ],
    cmdclass={"build_ext": Build},
)
