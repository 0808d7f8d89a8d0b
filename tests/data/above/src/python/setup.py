"""Builds fatwheel_above. setuptools and torch name objects in different ways: both are here."""

import os
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA = Path(os.environ["CUDA_HOME"])
TOP = Path(__file__).resolve().parent.parent
INCLUDES = [f"-I{TOP / 'include'}", f"-I{sysconfig.get_path('include')}"]
CXX = [os.environ["CXX"], "-g", "-fPIC", *INCLUDES]
NVCC = [CUDA / "bin" / "nvcc", "-lineinfo", "-Xcompiler", "-fPIC", *INCLUDES]


class Build(build_ext):
    def build_extension(self, ext):
        temp = Path(self.build_temp).absolute()
        own, relative, absolute = ext.sources
        objects = [
            temp / "csrc" / "module.o",
            Path(os.path.normpath(temp / relative)).with_suffix(".o"),
            Path(f"{temp}{TOP / 'csrc' / 'absolute.o'}"),
        ]
        commands = [[*CXX, "-c", own], [*NVCC, "-c", relative], [*NVCC, "-c", absolute]]
        for command, made in zip(commands, objects, strict=True):
            made.parent.mkdir(parents=True, exist_ok=True)
            subprocess.check_call([*command, "-o", made])
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        linked = [*objects, f"-L{CUDA / 'lib64'}", "-lcudart", "-o", library]
        subprocess.check_call([os.environ["CXX"], "-shared", *linked])


setup(
    name="fatwheel-above",
    version="1.0",
    packages=["fatwheel_above"],
    ext_modules=[
        Extension(
            "fatwheel_above._C",
            ["csrc/module.cpp", "../csrc/relative.cu", str(TOP / "csrc" / "absolute.cu")],
        )
    ],
    cmdclass={"build_ext": Build},
)
