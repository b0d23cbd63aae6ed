"""How long is a chapter, quick and full? `python benchmarks/profiles.py [NUMBER ...]`; none means
all, shortest first.

Each is executed as in Jupyter, without exporting its labs, on one thread, or on a GPU where there
is one. On a CPU the time is the processor's, so that other work on the machine does not count; on a
GPU it is the clock's. Written after each chapter to src/helpers/recorded/profiles.json, a section
for each kind of device; goes on after a kill. A processor with more is held to AVX2, of which the
pages speak, by ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record
import torch

from helpers.files import RESULTS
from press.chapters import LEDGER, PROFILES, Book
from press.execute import kernel_environment


def seconds(book: Book, chapter: Path, profile: str) -> float:
    """Of one execution, which must succeed."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            k: v for k, v in kernel_environment(book).items() if k != "CREATIVE_DENOISER_SITE"
        }
        command = [
            sys.executable,
            "-m",
            "press.worker",
            str(book.root / chapter),
            f"{folder}/out.ipynb",
        ]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(
            [*command, f"profile={profile}"], env=environment | {RESULTS: folder}, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if record.DEVICE == "cuda":
        return time.monotonic() - start
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    os.chdir(record.ROOT)
    book = Book.find()
    chapters = [c for c in book.select(sys.argv[1:]) if c.stem != LEDGER]
    kind = "cuda" if record.DEVICE == "cuda" else f"cpu, {torch.backends.cpu.get_cpu_capability()}"
    found = record.read("profiles").get(kind, {}).get("rows", {})
    for profile in PROFILES:
        for chapter in sorted(chapters, key=lambda c: found.get(c.stem, {}).get("quick", 0.0)):
            if profile in found.get(chapter.stem, {}):
                continue
            found.setdefault(chapter.stem, {})[profile] = round(seconds(book, chapter, profile), 1)
            print(chapter.stem, profile, found[chapter.stem][profile], flush=True)
            record.write("profiles", kind, {"rows": found, "provenance": record.provenance()})
