"""Builds fatwheel_byarch: an extension with a source more where the list has 8.9."""

import os
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA = Path(os.environ["CUDA_HOME"])
LISTED = [item.partition("+")[0] for item in os.environ["TORCH_CUDA_ARCH_LIST"].split(";")]
# As torch makes them: an option for each.
GENCODES = [
    f"-gencode=arch=compute_{number},code=sm_{number}"
    for number in (item.replace(".", "") for item in LISTED)
]


class Build(build_ext):
    def build_extension(self, ext):
        objects = []
        for source in ext.sources:
            objects.append(Path(self.build_temp, source).with_suffix(".o"))
            objects[-1].parent.mkdir(parents=True, exist_ok=True)
            if source.endswith(".cu"):
                command = [CUDA / "bin" / "nvcc", "-Xcompiler", "-fPIC", *GENCODES]
            else:
                include = sysconfig.get_path("include")
                command = [os.environ["CXX"], "-g", "-fPIC", f"-I{include}"]
            subprocess.check_call([*command, "-c", source, "-o", objects[-1]])
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        linked = [*objects, f"-L{CUDA / 'lib64'}", "-lcudart", "-o", library]
        subprocess.check_call([os.environ["CXX"], "-shared", *linked])


setup(
    name="fatwheel-byarch",
    version="1.0",
    install_requires=["nvidia-cuda-runtime"],  # as a wheel that is linked with it should
    packages=["fatwheel_byarch"],
    ext_modules=[
        Extension(
            "fatwheel_byarch._C",
            ["csrc/module.cpp", "csrc/base.cu", *(["csrc/newer.cu"] if "8.9" in LISTED else [])],
        )
    ],
    cmdclass={"build_ext": Build},
)
