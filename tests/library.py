"""The library by itself: `python tests/library.py [arguments of pytest]`.

Runs tests/contract and tests/theory on a copy of the package from which systems, experiments, labs
and press are deleted.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ABOVE = ("systems", "experiments", "lab")  # what knows the library, and what it does not know


def copied(root: Path) -> dict[str, str]:
    """Puts the library and its tests into `root`; the environment in which they are found."""
    caches = shutil.ignore_patterns("__pycache__", *ABOVE)
    shutil.copytree(ROOT / "src/helpers", root / "src/helpers", ignore=caches)
    (root / "src/press.py").write_text("raise ImportError('there is no press here')")
    for room in ("contract", "theory"):
        shutil.copytree(ROOT / "tests" / room, root / "tests" / room, ignore=caches)
    for file in ("conftest.py", "faces.py", "nets.py", "pretend.py", "wings.py"):
        shutil.copy(ROOT / "tests" / file, root / "tests")
    shutil.copytree(ROOT / "models", root / "models")
    shutil.copy(ROOT / "pyproject.toml", root)
    return os.environ | {"PYTHONPATH": str(root / "src")}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        environment = copied(Path(folder))
        command = [sys.executable, "-m", "pytest", "-q", *sys.argv[1:]]
        sys.exit(subprocess.run(command, cwd=folder, env=environment).returncode)
