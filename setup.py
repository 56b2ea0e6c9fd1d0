"""The extensions and their flags; all metadata is in pyproject.toml.

Switches, by environment: FASTCAST_DEBUG=1 builds without optimisation and with assertions,
FASTCAST_SANITIZE=address,undefined (or thread) instruments the C.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

if sys.platform != "linux":
    sys.exit(
        "fastcast runs on Linux only: it is built on epoll, eventfd and file descriptor tables of threads"
    )

debug = os.environ.get("FASTCAST_DEBUG") == "1"
sanitize = os.environ.get("FASTCAST_SANITIZE")

# Hidden: a module exports its PyInit function and nothing else.
compile_args = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-fvisibility=hidden"]
compile_args += ["-O0", "-g3"] if debug else ["-O3", "-g1", "-DNDEBUG"]
link_args = []
if sanitize:
    compile_args += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    link_args += [f"-fsanitize={sanitize}"]


def extension(name: str, directory: str) -> Extension:
    """fastcast/NAME.pyx over all of the C in fastcast/DIRECTORY."""
    library = Path("fastcast") / directory
    return Extension(
        f"fastcast.{name}",
        # Sorted, for builds that come out the same everywhere.
        sources=[f"fastcast/{name}.pyx", *sorted(str(source) for source in library.glob("*.c"))],
        depends=sorted(map(str, (*library.glob("*.h"), *Path("fastcast").glob("*.pxi")))),
        include_dirs=[str(library)],
        libraries=["m"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


setup(
    ext_modules=cythonize(
        [extension("_core", "core"), extension("_load", "load")],
        build_dir="build/cython",
    )
)
