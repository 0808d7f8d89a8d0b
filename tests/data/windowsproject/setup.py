"""A project as they are on Windows: nvcc.exe by CUDA_HOME, cl and link as setuptools finds them."""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
CUDA = Path(os.environ["CUDA_HOME"])
GREETING = 'it says "hello there"'


class BuildExtension(build_ext):
    def build_extension(self, extension):
        """nvcc for CUDA sources, as torch has it; the rest is setuptools'."""
        self.spawn(["ninja", "--version"])  # a package's program, with which torch builds
        cuda = [source for source in extension.sources if source.endswith(".cu")]
        extension.sources = [source for source in extension.sources if source not in cuda]
        for source in cuda:
            folder = Path(self.build_temp, os.path.dirname(source))
            folder.mkdir(parents=True, exist_ok=True)
            output = folder / (Path(source).stem + ".obj")
            self.spawn(
                [str(CUDA / "bin" / "nvcc"), "-c", str(ROOT / source), "-o", str(output),
                 f"-I{ROOT / 'csrc' / 'headers here'}", "-DFACTOR=3", "-D", "WORDS=\"a b\"",
                 "--options-file", str(ROOT / "many.rsp"),
                 "-Xcompiler", "/MD,/EHsc", "-O3", "--use-local-env",
                 "-gencode", "arch=compute_80,code=sm_80"]
            )  # fmt: skip
            extension.extra_objects.append(str(output))
        super().build_extension(extension)


# More than a command line of Windows takes (32,767 characters): so it goes to a file.
MANY = [f"-DNUMBER_{number}_OF_MANY_MACROS_THAT_SAY_NOTHING={number}" for number in range(800)]
(ROOT / "many.rsp").write_text("\n".join(MANY))

setup(
    name="windows-demo",
    version="1.0",
    packages=["windows_demo"],
    ext_modules=[
        Extension(
            "windows_demo._C",
            ["csrc/module.cpp", "csrc/scale.cu", "csrc/shift.cu"],
            include_dirs=[str(ROOT / "csrc" / "headers here")],
            define_macros=[("GREETING", '"' + GREETING.replace('"', '\\"') + '"')],
            extra_compile_args=[f"@{ROOT / 'many.rsp'}", "/EHsc"],
            # Python.h would name the second one.
            libraries=["cudart", "python{}{}".format(*sys.version_info)],
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
