from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

setup(
    name="std20",
    version="1.0",
    packages=["std20"],
    ext_modules=[
        CUDAExtension(
            "std20._C",
            ["a.cu", "m.cpp", "n.cc"],
            extra_compile_args={"cxx": ["-std=c++17"], "nvcc": ["-std=c++17"]},
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
