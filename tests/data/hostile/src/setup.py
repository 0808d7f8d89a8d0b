"""Builds one extension, and attacks the machine on the way: in every run, and in its compiler."""

import json
import os
import subprocess
from pathlib import Path

import attempts
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
NVCC = [os.path.join(os.environ["CUDA_HOME"], "bin", "nvcc"), "-Xcompiler", "-fPIC"]
# nvcc's gcc starts each of its steps through this program, so a shard runs the project's code, too.
NVCC += ["-Xcompiler", "-wrapper", "-Xcompiler", rf"python3\,{HERE / 'wrapper'}"]
MEMBER = "attempts.json"


class Build(build_ext):
    def build_extension(self, ext):
        folder = Path(self.build_temp)
        folder.mkdir(parents=True, exist_ok=True)
        device, host = folder / "scale.o", folder / "module.o"
        subprocess.check_call([*NVCC, "-c", str(HERE / "scale.cu"), "-o", device])
        compiler = os.environ["CXX"]
        subprocess.check_call([compiler, "-fPIC", "-c", str(HERE / "module.cpp"), "-o", host])
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        init = "-Wl,--defsym=PyInit__scale=0"  # nobody imports this one
        subprocess.check_call([compiler, "-shared", init, device, host, "-o", library])


package = HERE / "fatwheel_hostile"
(package / MEMBER).write_text(json.dumps(attempts.run_all(), indent=1))
setup(
    name="fatwheel-hostile",
    version="1.0",
    packages=["fatwheel_hostile"],
    package_data={"fatwheel_hostile": [MEMBER]},
    ext_modules=[Extension("fatwheel_hostile._scale", ["scale.cu", "module.cpp"])],
    cmdclass={"build_ext": Build},
)
