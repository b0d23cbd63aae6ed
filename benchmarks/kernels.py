"""How fast are the exact kernels? `python benchmarks/kernels.py`: one command, one table.

All variants of a table run in turn, round after round, so that a busy moment meets each of them;
medians over the rounds. On the processor: CPU seconds of one thread; on a GPU, when there is one:
seconds by its own clock. KeOps joins where `pip install pykeops` has been done. The table goes to
src/helpers/recorded/kernels.json, a section for each kind of device, from which the chapter *How
fast is exact?* draws.
"""

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch.nn import functional as F

from helpers.denoisers import PosteriorMean, UNet
from helpers.files import write_atomically
from helpers.jacobian import CHUNK, Jacobian, eigen
from helpers.kernels import posterior
from helpers.kernels.local import local_mean

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "src/helpers/recorded/kernels.json"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Run = Callable[[], object]


def seconds(run: Run) -> float:
    """One timing: CPU seconds of this process, or seconds of the GPU between two of its own events."""
    if DEVICE == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000


def medians(variants: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of each variant, in turns, after one call each to warm up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            spent = seconds(run)
            if turn:
                times[name].append(spent)
    return {name: statistics.median(t) for name, t in times.items()}


def exponent(sizes: list[int], times: list[float]) -> float:
    """Slope of log time against log size, by least squares."""
    x, y = ([math.log(v) for v in values] for values in (sizes, times))
    mx, my = statistics.fmean(x), statistics.fmean(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum(
        (a - mx) ** 2 for a in x
    )


# Data: smooth pictures, as faces and clothes are, and points of the plane -------------------------


def pictures(n: int, side: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(n, 1, 10, 10, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)[:, 0].to(DEVICE)


def noisy(x: torch.Tensor, b: int, sigma: float) -> torch.Tensor:
    return x[:b] + sigma * torch.randn(x[:b].shape, generator=torch.Generator().manual_seed(1)).to(
        DEVICE
    )


# Other ways to the same mean ----------------------------------------------------------------------


def naive(x, y, sigma):
    """The formula as it is written, for four queries at a time: (4, N, D) numbers."""
    parts = [
        torch.softmax(-(q[:, None] - x).square().sum(2) / (2 * sigma**2), 1) @ x for q in y.split(4)
    ]
    return torch.cat(parts)


def cdist(x, y, sigma):
    return torch.softmax(-torch.cdist(y, x).square() / (2 * sigma**2), 1) @ x


def attention(x, y, sigma):
    """scaled_dot_product_attention with queries [y / sigma^2, 1], keys [x, -|x|^2 / 2 sigma^2] and
    values x."""
    q = torch.cat([y / sigma**2, torch.ones_like(y[:, :1])], 1)
    k = torch.cat([x, -x.square().sum(1, keepdim=True) / (2 * sigma**2)], 1)
    return F.scaled_dot_product_attention(q[None], k[None], x[None], scale=1.0)[0]


def keops(x, y, sigma):
    from pykeops.torch import LazyTensor

    gaps = (LazyTensor(y[:, None].contiguous()) - LazyTensor(x[None].contiguous())).square().sum(-1)
    return (-gaps / (2 * sigma**2)).sumsoftmaxweight(LazyTensor(x[None].contiguous()), axis=1)


def ours(x, y, sigma, summary=None):
    return posterior.posterior_mean(x, y, sigma, summary=summary).mean


def others() -> dict[str, Callable]:
    ways = {
        "naive torch": naive,
        "cdist, softmax, matmul": cdist,
        "scaled_dot_product_attention": attention,
    }
    try:
        version("pykeops")
        ways["KeOps"] = keops
    except PackageNotFoundError:
        print("KeOps is not installed: pip install pykeops")
    return ways


# Tables -------------------------------------------------------------------------------------------


def products() -> dict[str, Run]:
    """Products of two 2048 x 2048 float32 matrices, by all who offer one: the best is the machine's
    rate."""
    a, b = torch.randn(2, 2048, 2048, device=DEVICE)
    found: dict[str, Run] = {"torch": partial(torch.mm, a, b)}
    if DEVICE == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        found["oneDNN"] = partial(torch.ops.mkldnn._linear_pointwise, a, b, None, "none", [], "")
    return found


def machine(rounds: int) -> dict:
    """The machine's own best: float32 products, and reading 256 MB."""
    memory = torch.randn(2**26, device=DEVICE)
    found = medians(products() | {"read": memory.sum}, 3 * rounds)
    read = found.pop("read")
    rates = {name: 2 * 2048**3 / t / 1e9 for name, t in found.items()}
    return {"gemm_gflops": rates, "read_gb_per_s": 4 * 2**26 / read / 1e9}


def images(rounds: int) -> dict:
    """Posterior mean of 64 queries in 10,000 pictures of 80 x 80, at three noise levels."""
    n, b, side = 10_000, 64, 80
    x = pictures(n, side).flatten(1)
    denoiser, radius, rows = PosteriorMean(x), posterior.summarise(x).radius, []
    for sigma in (0.1, 3.0, 30.0):
        y = noisy(x, b, sigma)
        # the rest by proportion
        few = {"naive torch": (y[:4], x[:500]), "KeOps": (y[:16], x[:500])}
        ways = {"this book": lambda x, y, s: denoiser(y, s)} | others()
        sets = {name: few.get(name, (y, x)) for name in ways}
        runs = {
            name: partial(way, sets[name][1], sets[name][0], sigma) for name, way in ways.items()
        }
        gemm = products()
        found = medians(runs | gemm, rounds)
        best = 2 * 2048**3 / min(found.pop(name) for name in gemm)
        for name, spent in found.items():
            queries, points = sets[name]
            scale = (b * n) / (len(queries) * len(points))
            gap = (runs[name]().double() - ours(points.double(), queries.double(), sigma)).norm(
                dim=1
            )
            rows.append({
                "sigma": sigma, "way": name, "seconds": spent * scale, "measured_part": 1 / scale,
                "ratio": spent * scale / found["this book"], "error": float(gap.max()) / radius,
                "gemm_fraction": 4 * b * n * side**2 / (spent * scale) / best,
            })  # fmt: skip
    return {"B": b, "N": n, "D": side**2, "rows": rows}


def planes(rounds: int) -> dict:
    """Posterior mean of 100,000 particles in 1000 points of the plane; with the 2 x 2 Jacobian too."""
    g = torch.Generator().manual_seed(0)
    x, sigma = torch.randn(1000, 2, generator=g).to(DEVICE), 0.3
    y = (
        x[torch.randint(1000, (100_000,), generator=g)].cpu()
        + sigma * torch.randn(100_000, 2, generator=g)
    ).to(DEVICE)
    ways = {"this book": ours} | others()
    runs: dict[str, Run] = {name: partial(way, x, y, sigma) for name, way in ways.items()}
    runs["naive torch"] = lambda: [naive(x, q, sigma) for q in y[:10_000].split(1000)]
    runs["this book, with Jacobian"] = lambda: posterior.posterior_mean_and_jacobian(x, y, sigma)
    found = medians(runs, rounds)
    found["naive torch"] *= 10
    exact = naive(x.double(), y[:2000].double(), sigma)
    errors = {
        name: float((way(x, y[:2000], sigma) - exact).norm(dim=1).max())
        for name, way in ways.items()
    }
    rows = [
        {"way": name, "seconds": t, "ratio": t / found["this book"], "error": errors.get(name)}
        for name, t in found.items()
    ]
    return {"B": 100_000, "N": 1000, "implementation": posterior.implementation(x), "rows": rows}


def growth(rounds: int) -> dict:
    """Time against one size at a time, the others fixed."""
    fixed, result = {"N": 4000, "D": 1600, "B": 64}, {}
    for axis, sizes in {
        "N": [1000, 2000, 4000, 8000, 16_000],
        "D": [400, 1600, 6400, 25_600],
        "B": [16, 64, 256, 1024],
    }.items():
        runs: dict[str, Run] = {}
        for size in sizes:
            at = fixed | {axis: size}
            x = pictures(at["N"], math.isqrt(at["D"])).flatten(1)
            y, summary = noisy(x, at["B"], 3.0), posterior.summarise(x)
            runs[str(size)] = partial(ours, x, y, 3.0, summary)
        found = medians(runs, rounds)
        result[axis] = {
            "sizes": sizes,
            "seconds": list(found.values()),
            "exponent": exponent(sizes, list(found.values())),
        }
    return {"fixed": fixed, **result}


def local(rounds: int) -> dict:
    """One 32 x 32 query in 1000 pictures, local and equivariant, by each implementation."""
    x, rows = pictures(1000, 32), []
    codes = ("C", "torch") if DEVICE == "cpu" else ("Triton", "torch")
    for sigma in (0.1, 1.0):
        y = noisy(x, 1, sigma)
        for which in ("local", "equivariant"):
            for patch in (3, 7, 15):
                # products of all windows with all patches take so long that a tenth must do
                sets = {
                    code: x[:100] if (which, code) == ("equivariant", "torch") else x
                    for code in codes
                }
                runs = {
                    c: partial(local_mean, sets[c], y, sigma, patch, which, implementation=c)
                    for c in codes
                }
                for code, spent in medians(runs, rounds).items():
                    row = {"machine": which, "patch": patch, "sigma": sigma, "code": code}
                    part = len(sets[code]) / len(x)
                    rows.append(row | {"seconds": spent / part, "measured_part": part})
    return {"N": 1000, "side": 32, "rows": rows}


def forward(network: UNet, vectors: torch.Tensor) -> list[torch.Tensor]:
    return [network(part, 0.1) for part in vectors.split(max(1, CHUNK // vectors[0].numel()))]


def eigenvectors(network: UNet, y: torch.Tensor, k: int | None) -> object:
    return eigen(Jacobian(network, y, 0.1), k)


def jacobians(rounds: int) -> dict:
    """A bias-free UNet of three poolings and 32 channels: products with the identity's rows, and
    eigenvectors."""
    network, rows = UNet(blocks=3, channels=32, seed=0).to(DEVICE), []
    with torch.no_grad():  # one pass in training mode sets the running standard deviations
        network(pictures(16, 40), 1.0)
    network.eval()
    for side, count in ((40, 256), (80, 64)):
        y = noisy(pictures(1, side), 1, 0.1)
        vectors = torch.randn(count, side, side, generator=torch.Generator().manual_seed(0)).to(
            DEVICE
        )
        methods = {m: Jacobian(network, y, 0.1, method=m) for m in ("frozen masks", "vmap(jvp)")}
        runs: dict[str, Run] = {
            name: partial(jacobian.matvec, vectors) for name, jacobian in methods.items()
        }
        runs["forward pass"] = partial(forward, network, vectors)
        with torch.no_grad():
            found = medians(runs, rounds)
        rows += [
            {"side": side, "way": name, "seconds_per_vector": t / count}
            for name, t in found.items()
        ]
    cases = {"all of 40 x 40": (40, None), "top 50 of 80 x 80": (80, 50)}
    found = {}
    for name, (side, k) in cases.items():
        run = partial(eigenvectors, network, noisy(pictures(1, side), 1, 0.1), k)
        run()
        torch.set_num_threads(os.cpu_count() or 1)
        start = time.perf_counter()
        run()
        wall = time.perf_counter() - start
        torch.set_num_threads(1)
        found[name] = {"seconds": seconds(run), "wall_seconds": wall, "threads": os.cpu_count()}
    return {"products": rows, "eigenvectors": found}


def peaks() -> dict[str, float]:
    """Largest memory above the data's own while one call runs, in MiB, each in a process of its
    own."""
    if DEVICE == "cuda":
        result = {}
        for name in ("this book", "cdist, softmax, matmul", "scaled_dot_product_attention"):
            run, base = peak_case(name), torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            run()
            result[name] = (torch.cuda.max_memory_allocated() - base) / 2**20
        return result
    names = ("this book", "naive torch", "cdist, softmax, matmul", "scaled_dot_product_attention")
    output = {
        n: subprocess.run([sys.executable, __file__, "--peak", n], capture_output=True, text=True)
        for n in names
    }
    return {name: float(run.stdout) for name, run in output.items()}


def peak_case(name: str) -> Run:
    x = pictures(10_000, 80).flatten(1)
    y = noisy(x, 64, 30.0)
    return {
        "this book": partial(PosteriorMean(x), y, 30.0),
        "naive torch": lambda: naive(x, y[:4], 30.0),
        "cdist, softmax, matmul": lambda: cdist(x, y, 30.0),
        "scaled_dot_product_attention": lambda: attention(x, y, 30.0),
    }[name]


def peak(name: str) -> float:
    run = peak_case(name)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # the data's own preparation may have peaked higher than its end: fill up to that first
    now = (
        int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        * resource.getpagesize()
        // 1024
    )
    filler = torch.ones(max(0, base - now) * 256)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    del filler
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def provenance(rounds: int) -> dict:
    if DEVICE == "cuda":
        processor = torch.cuda.get_device_name()
    else:
        lines = (
            Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if Path("/proc/cpuinfo").exists()
            else []
        )
        processor = next(
            (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
            platform.machine(),
        )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    installed = {}
    for package in ("torch", "triton", "pykeops", "numpy"):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            pass
    return {
        "device": processor, "clock": "CPU seconds of one thread" if DEVICE == "cpu" else "GPU seconds",
        "python": platform.python_version(), "versions": installed, "commit": commit.strip(),
        "date": date.today().isoformat(), "rounds": rounds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timings of each variant (default 5)")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # KeOps looks there, and only once
        os.execve(
            sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_NUM_THREADS": "1"}
        )
    torch.set_num_threads(1)
    if arguments.peak:
        print(peak(arguments.peak))
        return
    found = {"provenance": provenance(arguments.rounds), "machine": machine(arguments.rounds)}
    tables = {
        "images": images, "plane": planes, "growth": growth, "local": local, "jacobian": jacobians,
    }  # fmt: skip
    for name, table in tables.items():
        found[name] = table(arguments.rounds)
        print(json.dumps({name: found[name]}, indent=1), flush=True)
    found["peak_mib"] = peaks()
    recorded = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    write_atomically(RESULT, json.dumps(recorded | {DEVICE: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
