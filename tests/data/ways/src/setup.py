"""Builds fatwheel_ways: what is compiled in each of many ways, linked together, and a library by
one command of nvcc."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA = Path(os.environ["CUDA_HOME"])
NVCC = str(CUDA / "bin" / "nvcc")
REAL_NVCC = str((CUDA / "include").resolve().parent / "bin" / "nvcc")
os.environ.update(CC="gcc", CXX="g++", NVCC="nvcc", NVCC_CCBIN="/usr/bin/g++", PYTORCH_NVCC=NVCC)
CUDA_WAYS = {
    "by_name": ["nvcc"],
    "by_variable": [os.environ["NVCC"]],
    "by_cuda_home": [NVCC, "-ccbin", "/usr/bin/g++"],
    "by_pytorch_nvcc": [os.environ["PYTORCH_NVCC"]],
    "by_real_path": [os.path.realpath(shutil.which("nvcc"))],
}
DEVICE = ["-Xcompiler", "-fPIC"]
MAKEFILE = """\
NVCC := $(CUDA_PATH)/bin/nvcc
all: $(OUT)/by_make.o $(OUT)/module.o $(OUT)/plain.o
$(OUT)/%.o: csrc/%.c
	$(CC) -fPIC -c $< -o $@
$(OUT)/%.o: csrc/%.cpp
	$(CXX) -fPIC $(INCLUDE) -c $< -o $@
$(OUT)/by_make.o: csrc/kernel.cu
	$(NVCC) -Xcompiler -fPIC -DWAY=by_make -c $< -o $@
"""


class Build(build_ext):
    def build_extension(self, ext):
        library = Path(self.get_ext_fullpath(ext.name)).absolute()
        library.parent.mkdir(parents=True, exist_ok=True)
        made = Path(self.build_temp).absolute()
        made.mkdir(parents=True, exist_ok=True)
        for way, nvcc in CUDA_WAYS.items():
            unit = [f"-DWAY={way}", "-c", "csrc/kernel.cu", "-o", made / f"{way}.o"]
            subprocess.check_call([*nvcc, *DEVICE, *unit])
        Path("Makefile").write_text(MAKEFILE)
        subprocess.check_call(["make", f"OUT={made}", f"INCLUDE=-I{sysconfig.get_path('include')}"])
        several = ["-c", "csrc/first.cu", "csrc/second.cu"]
        subprocess.check_call([NVCC, *DEVICE, "-odir", made, *several])
        shared = ["-cudart", "shared", "-shared"]
        onestep = ["csrc/onestep.cu", "-o", library.with_name("libonestep.so")]
        subprocess.check_call(["nvcc", *DEVICE, *shared, *onestep])
        self.by_cmake(made / "cmake", library.with_name("libcmake.so"))
        linked = [*sorted(made.glob("*.o")), f"-L{CUDA / 'lib64'}", "-lcudart"]
        subprocess.check_call([os.environ["CXX"], "-shared", *linked, "-o", library])

    def by_cmake(self, folder, library):
        cmake = shutil.which("cmake", path=os.defpath)
        paths = {
            "CMAKE_CXX_COMPILER": "/usr/bin/g++",
            "CMAKE_CUDA_COMPILER": REAL_NVCC,
            "CMAKE_CUDA_HOST_COMPILER": "/usr/bin/g++",
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": library.parent,
        }
        options = [f"-D{name}={value}" for name, value in paths.items()]
        subprocess.check_call([cmake, "-S", ".", "-B", folder, "-G", "Ninja", *options])
        subprocess.check_call([cmake, "--build", folder])


setup(
    name="fatwheel-ways",
    version="1.0",
    install_requires=["nvidia-cuda-runtime"],  # as a wheel that is linked with it should
    packages=["fatwheel_ways"],
    ext_modules=[Extension("fatwheel_ways._C", [])],
    cmdclass={"build_ext": Build},
)
