"""Builds fatwheel_bypass: one extension, each source compiled in another way."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA = Path(os.environ["CUDA_HOME"])
REAL = {  # by their paths: no variable, and nothing in PATH, says where they are
    "g++": "/usr/bin/g++",
    "gcc": "/usr/bin/gcc",
    "nvcc": str((CUDA / "include").resolve().parent / "bin" / "nvcc"),
}
os.environ["CXX"] = "g++"  # as auto-gptq has it
DEBUG = ["-g", "-fPIC", f"-I{sysconfig.get_path('include')}"]
DEVICE = ["-g", "-Xcompiler", "-fPIC", "-gencode=arch=compute_80,code=sm_80"]
COMMANDS = {
    "module.cpp": [os.environ["CXX"], *DEBUG],
    "kernel.cu": ["nvcc", *DEVICE],
    "byname.c": ["cc", "-g", "-fPIC"],
    "bypath.cpp": [REAL["g++"], *DEBUG],
    "assembled.S": [REAL["gcc"], "-g", "-fPIC"],
    "bypath.cu": [REAL["nvcc"], *DEVICE],
}


class Build(build_ext):
    def build_extension(self, ext):
        objects = []
        for source in ext.sources:
            # By its absolute path, which debug information has.
            path = Path(source).absolute()
            objects.append(Path(self.build_temp, path.name + ".o").absolute())
            objects[-1].parent.mkdir(parents=True, exist_ok=True)
            subprocess.check_call([*COMMANDS[path.name], "-c", path, "-o", objects[-1]])
        brought = Path(self.build_temp, "brought.o")
        shutil.copyfile(objects[ext.sources.index("csrc/byname.c")], brought)
        objects[ext.sources.index("csrc/byname.c")] = brought
        # What is brought in a static library, beside what a stand-in made.
        archived = Path(self.build_temp, "archived.o")
        archived.write_bytes(brought.read_bytes() + b"\0")
        static = Path(self.build_temp, "libstatic.a").absolute()
        subprocess.check_call(["ar", "rcs", static, objects[0], archived])
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        linked = [
            "-Wl,--build-id=none",
            *objects,
            f"-L{CUDA / 'lib64'}",
            f"-L{static.parent}",
            "-lcudart",
            "-lstatic",
            f"-Wl,-rpath,{CUDA / 'lib64'}",
        ]
        # Once past the stand-ins and once not.
        other = library.with_name("libother.so")
        subprocess.check_call([REAL["g++"], "-shared", *linked, "-o", other])
        subprocess.check_call([os.environ["CXX"], "-shared", *linked, "-o", library])


setup(
    name="fatwheel-bypass",
    version="1.0",
    packages=["fatwheel_bypass"],
    ext_modules=[Extension("fatwheel_bypass._C", [f"csrc/{name}" for name in COMMANDS])],
    cmdclass={"build_ext": Build},
)
