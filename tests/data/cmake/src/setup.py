"""Builds fatwheel_cmake: an extension and a library that it needs, both built by CMake."""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class Build(build_ext):
    def build_extension(self, ext):
        cmake = shutil.which("cmake", path=os.defpath)
        package = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        with tempfile.TemporaryDirectory(prefix="random-") as build:
            subprocess.check_call(
                [
                    cmake,
                    "-S",
                    ".",
                    "-B",
                    build,
                    "-G",
                    "Ninja",
                    "-DCMAKE_BUILD_TYPE=Release",
                    f"-DCMAKE_INSTALL_PREFIX={package}",
                    f"-DDEMO_ARCHS={os.environ['DEMO_ARCHS']}",
                    f"-DPYTHON_INCLUDE={sysconfig.get_path('include')}",
                    f"-DMODULE_SUFFIX={sysconfig.get_config_var('EXT_SUFFIX')}",
                ]
            )
            subprocess.check_call([cmake, "--build", build, "--verbose"])
            subprocess.check_call([cmake, "--install", build])


setup(
    name="fatwheel-cmake",
    version="1.0",
    install_requires=["nvidia-cuda-runtime"],  # as a wheel that is linked with it should
    packages=["fatwheel_cmake"],
    ext_modules=[Extension("fatwheel_cmake._C", [])],
    cmdclass={"build_ext": Build},
)
