"""Builds fatwheel_byunit: an extension of which one source is for 8.x, and one for 9.0 alone."""

import os
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA = Path(os.environ["CUDA_HOME"])
LISTED = [item.partition("+")[0] for item in os.environ["TORCH_CUDA_ARCH_LIST"].split(";")]
ARCHS = {
    "base": [item.replace(".", "") for item in LISTED],
    "ampere": ["80"],
    "hopper": ["90a"],
}


class Build(build_ext):
    def build_extension(self, ext):
        objects = []
        for source in map(Path, ext.sources):
            objects.append(Path(self.build_temp, source).with_suffix(".o"))
            objects[-1].parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == ".cu":
                command = [CUDA / "bin" / "nvcc", "-Xcompiler", "-fPIC"]
                for arch in ARCHS[source.stem]:
                    command += ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
            else:
                command = [os.environ["CXX"], "-fPIC", f"-I{sysconfig.get_path('include')}"]
            subprocess.check_call([*command, "-c", source, "-o", objects[-1]])
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        # The driver's library: machines without a driver have a stub of it in CUDA.
        linked = [*objects, f"-L{CUDA / 'lib64'}", "-lcudart", "-lcuda", "-o", library]
        subprocess.check_call([os.environ["CXX"], "-shared", *linked])


SOURCES = ["module.cpp", "base.cu", "ampere.cu", "hopper.cu"]
setup(
    name="fatwheel-byunit",
    version="1.0",
    install_requires=["nvidia-cuda-runtime"],  # as a wheel that is linked with it should
    packages=["fatwheel_byunit"],
    ext_modules=[Extension("fatwheel_byunit._C", [f"csrc/{name}" for name in SOURCES])],
    cmdclass={"build_ext": Build},
)
