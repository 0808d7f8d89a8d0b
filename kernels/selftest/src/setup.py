"""Builds fatwheel_selftest: two extensions, one CUDA unit for every case that makes slices differ.

The hard-coded -gencode and --threads mimic what upstream projects do; fatwheel must drop them.
"""

import os
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

HERE = Path(os.path.abspath(__file__)).parent
NVCC = ["-O3", "-gencode", "arch=compute_75,code=sm_75", "--threads", "2"]


def extension(name: str, sources: list[str], nvcc: list[str]) -> CUDAExtension:
    return CUDAExtension(
        name=f"fatwheel_selftest.{name}",
        sources=[f"csrc/{source}" for source in sources],
        include_dirs=[HERE / "csrc"],
        extra_compile_args={"cxx": ["-O2"], "nvcc": NVCC + nvcc},
    )


setup(
    name="fatwheel-selftest",
    version="1.0.0",
    description="fatwheel's own test extension: one CUDA unit for every case",
    license="Apache-2.0",
    packages=["fatwheel_selftest"],
    python_requires=">=3.10",
    install_requires=["torch"],
    ext_modules=[
        extension(
            "_cases",
            [
                "binding.cpp",
                "templates.cu",
                "cub.cu",
                "anonymous.cu",
                "statics.cu",
                "perarch.cu",
                "scaled.cu",
                "scaled_again.cu",
            ],
            ["-DSELFTEST_FACTOR=2.0f"],
        ),
        extension(
            "_lineinfo",
            ["lineinfo_binding.cpp", "lineinfo.cu", "scaled.cu"],
            ["-DSELFTEST_FACTOR=3.0f", "-lineinfo"],
        ),
    ],
    cmdclass={"build_ext": BuildExtension},
)
