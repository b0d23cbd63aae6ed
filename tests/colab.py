"""The notebooks of colab/ as on Colab, with its versions: `python tests/colab.py [NUMBER ...]`,
none means all.

In an environment of their own, build/colab/venv, with the package installed; each is executed in a
folder of its own, without the checkout, its data or its results around it. Then the same chapters
run once more, in small, on the pretend device of tests/pretend.py, which mixes with the CPU no
better than a GPU. 1 when one fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / "build/colab/venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


UNSET = ("CELEBA_ROOT", "PEERS_ROOT", "FASHION_MNIST_ROOT", "PYTHONPATH")
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in UNSET} | {"OMP_NUM_THREADS": "1"}


def run(chapter: Path) -> int:
    folder = ROOT / "build/colab/run" / chapter.stem
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        PYTHON,
        "-m",
        "papermill",
        "--no-progress-bar",
        "--kernel",
        "python3",
        chapter,
        "out.ipynb",
    ]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    print(f"{chapter.stem}: {'failed' if done.returncode else 'ok'}", flush=True)
    print("\n".join(done.stderr.splitlines()[-25:]) if done.returncode else "", end="")
    return done.returncode


def pretend(numbers: list[str]) -> int:
    """The chapters of these numbers on a device that is none."""
    command = [PYTHON, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider"]
    command += ["tests/site/test_devices_chapters.py", "-k", " or ".join(numbers)]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT | {"PYTHONPATH": "tests"}).returncode


if __name__ == "__main__":
    chapters = sorted((ROOT / "colab").glob("*.ipynb"))
    wanted = [c for c in chapters if not sys.argv[1:] or c.stem.split("_")[0] in sys.argv[1:]]
    if not wanted:
        sys.exit(
            f"no chapter {' '.join(sys.argv[1:])}: give numbers as in {', '.join(c.stem for c in chapters[:2])}"
        )
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", PYTHON.parents[1]], check=True)
    with tempfile.TemporaryDirectory() as folder:
        # pip builds a package where it lies: there an older build may lie, or another run
        unwanted = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "unshipped")
        copy = shutil.copytree(ROOT, Path(folder) / "package", ignore=unwanted)
        install = [PYTHON, "-m", "pip", "install", "--quiet", "--no-compile"]
        install += ["--requirement", "tests/colab.txt", copy]
        subprocess.run(install, cwd=ROOT, check=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = max(pool.map(run, wanted))
    numbers = [c.stem[:2] for c in wanted if c.stem[0].isdigit()]
    sys.exit(1 if failed or numbers and pretend(numbers) else 0)
