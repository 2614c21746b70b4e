"""Builds attnc._core: one extension, all instruction sets inside it (csrc/targets)."""

import os
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from glob import glob

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Free-threaded builds of CPython have no limited API.
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")
macros = [
    ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
    # keep in sync with "numpy>=1.26" in pyproject.toml
    ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION"),
]
if limited:
    # keep in sync with "requires-python" in pyproject.toml and with the wheel tag below
    macros.append(("Py_LIMITED_API", "0x030b0000"))

# -ffp-contract=off: multiply-adds are fused only where a kernel says so. Never -ffast-math: masks
# are infinities, and linking with it would change the arithmetic of the whole process. -g0: debug
# information, which Python's own flags ask for, would be seven eighths of the file.
flags = ["-O3", "-g0", "-std=c11", "-fvisibility=hidden", "-ffp-contract=off"]
extra = os.environ.get("ATTNC_CFLAGS", "").split()  # e.g. -Werror, sanitizers, --coverage

# Without threads (csrc/engine/pool.h), where a system has none.
if os.environ.get("ATTNC_NO_THREADS"):
    extra.append("-DATTNC_NO_THREADS")
threads = [] if "-DATTNC_NO_THREADS" in extra else ["-pthread"]

core = Extension(
    "attnc._core",
    sources=[
        # The kernels first: they take the longest to compile.
        *sorted(glob("csrc/targets/*.c")),
        *sorted(glob("csrc/engine/*.c")),
        *sorted(glob("csrc/jax/*.c")),
        *sorted(glob("csrc/python/*.c")),
    ],
    depends=sorted(glob("csrc/*.h") + glob("csrc/*/*.h") + glob("csrc/*/*.inc")),
    include_dirs=[numpy.get_include()],
    define_macros=macros,
    extra_compile_args=flags + threads + ["-Wall", "-Wextra"] + extra,
    extra_link_args=threads + extra,
    py_limited_api=limited,
)


class build_files_together(build_ext):
    """Compile the files of an extension side by side: the kernels take several seconds each."""

    def build_extensions(self):
        compile = self.compiler.compile

        def compile_together(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(lambda source: compile([source], **options), sources))
            return sum(objects, [])

        self.compiler.compile = compile_together
        super().build_extensions()


setup(
    ext_modules=[core],
    cmdclass={"build_ext": build_files_together},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if limited else {},
)
