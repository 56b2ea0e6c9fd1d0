"""The extension and its flags; all metadata is in pyproject.toml.

Switches, by environment: FASTCAST_DEBUG=1 builds without optimisation and with assertions,
FASTCAST_SANITIZE=address,undefined (or thread) instruments the core.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

if sys.platform != "linux":
    sys.exit("fastcast runs on Linux only: it is built on epoll, eventfd and file descriptor tables of threads")

debug = os.environ.get("FASTCAST_DEBUG") == "1"
sanitize = os.environ.get("FASTCAST_SANITIZE")

compile_args = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-fvisibility=hidden"]
compile_args += ["-O0", "-g3"] if debug else ["-O3", "-g1", "-DNDEBUG"]
link_args = []
if sanitize:
    compile_args += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    link_args += [f"-fsanitize={sanitize}"]

core = Path("fastcast/core")
extension = Extension(
    "fastcast._core",
    # Sorted, for builds that come out the same everywhere.
    sources=["fastcast/_core.pyx", *sorted(str(source) for source in core.glob("*.c"))],
    depends=sorted(str(header) for header in core.glob("*.h")),
    include_dirs=[str(core)],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
)

setup(ext_modules=cythonize([extension], build_dir="build/cython"))
