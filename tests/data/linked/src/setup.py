"""Builds fatwheel_linked: an extension whose device code is linked, and a library likewise."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA = Path(os.environ["CUDA_HOME"])
# What upstreams have: an architecture of their own, for compiling and for linking.
NVCC = [CUDA / "bin" / "nvcc", "-Xcompiler", "-fPIC", "-gencode", "arch=compute_75,code=sm_75"]
# By its path: no variable, and nothing in PATH, says where it is.
REAL_NVCC = [(CUDA / "include").resolve().parent / "bin" / "nvcc", *NVCC[1:]]
CXX = [os.environ["CXX"], "-fPIC", f"-I{sysconfig.get_path('include')}"]
RUNTIME = [f"-L{CUDA / 'lib64'}", "-lcudart"]


class Build(build_ext):
    def build_extension(self, ext):
        library = Path(self.get_ext_fullpath(ext.name)).resolve()
        library.parent.mkdir(parents=True, exist_ok=True)
        work = Path(self.build_temp).resolve()
        work.mkdir(parents=True, exist_ok=True)
        if os.environ["FORM"] == "cmake":
            self.by_cmake(library, work)
            return
        names = ("caller", "called")
        objects = [self.compiled(work, [*NVCC, "-dc"], f"{name}.cu") for name in names]
        archived = self.compiled(work, [*NVCC, "-rdc=true", "-c"], "archived.cu")
        objects.append(self.compiled(work, [*NVCC, "-c"], "plain.cu"))
        objects.append(self.compiled(work, [*CXX, "-c"], "module.cpp"))
        subprocess.check_call(["ar", "rcs", work / "libarchived.a", archived])
        libraries = [f"-L{work}", "-larchived"]
        whole = library.with_name("libwhole.so")
        words = ["-shared", "-cudart", "shared", *objects[:-1], *libraries, "-o", whole]
        subprocess.check_call([*NVCC, *words])
        # Sources for both compilers in one command, and a library that only a variable leads to.
        words = ["csrc/mixed.cu", "csrc/mixed.cpp", "-larchived"]
        place = os.pathsep.join([str(work), os.environ.get("LIBRARY_PATH", "")])
        command = [*NVCC, "-rdc=true", "-shared", "-cudart", "shared", *words]
        command += ["-o", library.with_name("libmixed.so")]
        subprocess.check_call(command, env={**os.environ, "LIBRARY_PATH": place})
        # A source for the host's compiler alone: all device code is in the library.
        words = ["-shared", "-cudart", "shared", "csrc/hosted.cpp", "-larchived"]
        place = library.with_name("libhosted.so")
        subprocess.check_call([*NVCC, *words, f"-L{work}", "-o", place])
        linked = work / "dlink.o"
        device = REAL_NVCC if os.environ["FORM"] == "past" else NVCC
        subprocess.check_call([*device, "-dlink", *objects, *libraries, "-o", linked])
        command = [*CXX, "-shared", *objects, linked, *libraries, *RUNTIME, "-o", library]
        subprocess.check_call(command)

    def compiled(self, work, tool, source):
        made = (work / source).with_suffix(".o")
        subprocess.check_call([*tool, f"csrc/{source}", "-o", made])
        return made

    def by_cmake(self, library, work):
        cmake = shutil.which("cmake", path=os.defpath)
        definitions = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": library.parent,
            "DEMO_ARCHS": os.environ["DEMO_ARCHS"],
            "PYTHON_INCLUDE": sysconfig.get_path("include"),
            "MODULE_SUFFIX": sysconfig.get_config_var("EXT_SUFFIX"),
        }
        words = [f"-D{name}={value}" for name, value in definitions.items()]
        subprocess.check_call([cmake, "-S", ".", "-B", work, "-G", "Ninja", *words])
        subprocess.check_call([cmake, "--build", work, "--verbose"])


setup(
    name="fatwheel-linked",
    version="1.0",
    install_requires=["nvidia-cuda-runtime"],  # as a wheel that is linked with it should
    packages=["fatwheel_linked"],
    ext_modules=[Extension("fatwheel_linked._C", [])],
    cmdclass={"build_ext": Build},
)
