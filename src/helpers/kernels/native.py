"""What this machine can run: loops in C, compiled on first use by its own compiler, and Triton;
else torch."""

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..files import cache_folder

# -ffast-math itself is avoided: linking with it switches denormal numbers off for the whole
# process.
FLAGS = (
    "-O3 -march=native -std=c11 -shared -fPIC -fno-math-errno -fno-trapping-math -fno-signed-zeros "
    "-fassociative-math -freciprocal-math -ffinite-math-only -ffp-contract=fast"
).split()
# compilers halve the vectors of AVX-512 unless told; unknown on other processors
WIDE = "-mprefer-vector-width=512"


def compiler() -> str | None:
    """The C compiler that `library` uses: $CC, cc, gcc or clang, the first that is there; None
    without one."""
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next((path for path in map(shutil.which, names) if path), None)


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """kernels/`name`.c as a loaded library, or None where it cannot be compiled or loaded.

    The result is kept in the user's cache folder (`files.cache_folder`) under a hash of source,
    compiler and processor, so that a cluster of unlike machines may share that folder. Where that
    is no place for programs, each process compiles its own among the temporary files.
    """
    source = Path(__file__).with_name(f"{name}.c").read_bytes()
    cc = compiler()
    if cc is None:
        return None
    try:
        version = subprocess.run([cc, "--version"], capture_output=True, text=True).stdout
        key = hashlib.sha256(
            source + "\0".join([version, *FLAGS, WIDE, _processor()]).encode()
        ).hexdigest()[:16]
        return _load(cc, source, cache_folder() / f"{name}-{key}.so")
    # no such place, none for programs, or a file there that does not load
    except (
        OSError,
        ValueError,
    ):
        pass
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
            return _load(cc, source, Path(own) / f"{name}.so")
    except OSError:
        return None


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed; looked up once, because a search of the path in every call would
    be felt."""
    return importlib.util.find_spec("triton") is not None


def _load(cc: str, source: bytes, path: Path) -> ctypes.CDLL | None:
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / path.name
            for extra in ([WIDE], []):
                command = [cc, *FLAGS, *extra, "-x", "c", "-", "-o", str(built), "-lm"]
                if subprocess.run(command, input=source, capture_output=True).returncode == 0:
                    os.replace(built, path)  # atomically: another process may compile the same
                    break
            else:
                return None
    return ctypes.CDLL(str(path))


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.machine() + platform.processor()
