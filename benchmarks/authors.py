"""Figures 1 to 5 of Kadkhodaie et al. 2024 by the weights that its authors released, beside ours:
`python benchmarks/authors.py FOLDER`, a folder with their `denoisers` somewhere below it.

Every row of a figure is made by the same code, from a network of theirs and from the one of the book
that comes nearest, on images of 80 x 80 pixels. Faces need CELEBA_ROOT. Figures go to
build/authors, and what they show is printed. What lies in the folder decides which figures there are.

Theirs may have seen our test faces in training, since their list of images was not released.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from record import ROOT, SEED, noisy
from torch import Tensor

from helpers import geometry, metrics, models, plots, sampling
from helpers.data import load
from helpers.data.synthetic import c_alpha, disks
from helpers.denoisers import Denoiser
from helpers.jacobian import Jacobian, eigen
from helpers.released import load_released

LEVELS = [10 ** (k * 2.5 / 9) for k in range(10)]  # of 255, the grid of the released code
MIDDLE = slice(2, 8)  # of them, over which slopes are fitted
RANKS = (5, 17, 29, 41, 53, 65, 77, 89, 101, 113)  # of which the paper draws eigenvectors
IMAGES, NOISES = 16, 4
# eigenvectors of C^alpha images and disks; the space in which all are looked for
TOP, BASIS = 20, 320

Found = dict[tuple[str, int, str], Path]  # data, number of images, set: file


def found(folder: Path) -> Found:
    """Their checkpoints below a folder, told by the names of its parts."""
    there: Found = {}
    for path in sorted(folder.glob("**/model.pt")):
        name = path.relative_to(folder).as_posix()
        alpha = re.search(r"C_alpha(\d)_beta\1_", name)
        data = f"c-alpha-{alpha[1]}" if alpha else ""
        data = data or ("faces" if "img_align_celeba_80x80" in name else "")
        data = data or ("disks" if re.search(r"(^|/)dis[ck]s?[_/]", name.lower()) else "")
        size = re.search(r"set_size_(\d+)", name)
        key = data, int(size[1]) if size else 0, "b" if "swapped" in name else "a"
        if not data or "BF_CNN" in name or key in there:  # bedrooms, other sizes, other networks
            print(f"left out: {name}")
            continue
        there[key] = path
    if not there:
        raise SystemExit(
            f"no model.pt below {folder}: pass the folder 'denoisers' of their repository"
        )
    return there


def curve(network: Denoiser, x: Tensor) -> list[float]:
    return models.psnr_table(network, x, LEVELS)["psnr"]


def figure_1(there: Found) -> None:
    """PSNR out against PSNR in on test faces, for each number of training faces."""
    x = load("celeba", "test", IMAGES, 80).images
    fig, ax = plt.subplots(figsize=(5, 4))
    into = [20 * torch.log10(torch.tensor(255 / level)).item() for level in LEVELS]
    theirs = {f"theirs, N = {n:,}": p for (d, n, s), p in there.items() if (d, s) == ("faces", "a")}
    rows = {name: load_released(path) for name, path in theirs.items()}
    for name, network in {**rows, "ours, N = 18,000": models.load("faces80")}.items():
        psnr = curve(network, x)
        ax.plot(into, psnr, "o-", ms=3, label=name)
        print("figure 1:", name, [round(v, 2) for v in psnr])
    ax.plot(into, into, ":", color=plots.TRAINING, lw=1)
    ax.set(xlabel="PSNR in, dB", ylabel="PSNR out, dB")
    ax.legend(fontsize=8)
    kept(fig, "1")


def figure_2(there: Found) -> None:
    """The same noise through two networks of disjoint sets, by their Algorithm 1."""
    counts = sorted(n for d, n, s in there if (d, s) == ("faces", "b") and (d, n, "a") in there)
    start = 0.5 + sampling.initial_noise(NOISES, 80, 80, sigma=1.0, seed=SEED).float()
    pairs = {
        f"theirs, N = {n:,}": [load_released(there["faces", n, s]) for s in "ab"] for n in counts
    }
    pairs |= {
        f"ours at 40 x 40, N = {n:,}": [models.load(f"faces-n{n}-{s}") for s in "ab"]
        for n in (10, 9442)
    }
    fig, axes = plt.subplots(len(pairs), 1, figsize=(2 * NOISES, 4 * len(pairs)), squeeze=False)
    for ax, (name, pair) in zip(axes[:, 0], pairs.items(), strict=True):
        begin = start if name.startswith("theirs") else start[:, :40, :40]
        made = [
            sampling.last(sampling.stochastic_ascent(one, begin, 1.0, growing=True, seed=SEED))
            for one in pair
        ]
        plots.images(ax, torch.cat(made), columns=NOISES)
        alike = metrics.pearson(*made)
        ax.set_title(f"{name}: {float(alike.mean()):.2f} alike", fontsize=9)
        print(
            "figure 2:",
            name,
            "similarity of the two samples",
            [round(v, 3) for v in alike.tolist()],
        )
    kept(fig, "2")


def vectors(
    figure: str, rows: dict[str, Denoiser], x: Tensor, sigma: float, ranks: tuple[int, ...]
) -> None:
    """Eigenvectors of the Jacobian at one noisy image (1, 80, 80), of each network."""
    fig, axes = plt.subplots(
        len(rows), 1, figsize=(1.2 * len(ranks) + 2, 1.7 * len(rows)), squeeze=False
    )
    y, at = noisy(x, sigma), torch.tensor(ranks) - 1
    for ax, (name, network) in zip(axes[:, 0], rows.items(), strict=True):
        space = eigen(Jacobian(network, y, sigma), max(ranks), max(BASIS, 2 * max(ranks)))
        values, drawn = space.values[at], plots.signed(space.vectors[at]).float()
        gray = torch.cat([x, y]).clamp(0, 1)[..., None].expand(-1, -1, -1, 3)
        labels = [
            "clean",
            "noisy",
            *(f"{k}: {float(v):.2f}" for k, v in zip(ranks, values, strict=True)),
        ]
        plots.images(ax, torch.cat([gray, drawn]), columns=len(labels), labels=labels)
        ax.set_title(name, fontsize=9)
        print(f"figure {figure}:", name, "eigenvalues", [round(v, 3) for v in values.tolist()])
    kept(fig, f"{figure}-vectors")


def figure_3(there: Found) -> None:
    """Eigenvectors at a face, sigma = .15, of the network of the most faces."""
    largest, letter = max((n, s) for d, n, s in there if d == "faces")
    rows = {f"theirs, N = {largest:,}": load_released(there["faces", largest, letter])}
    face = load("celeba", "test", 1, 80).images
    vectors("3", {**rows, "ours, N = 18,000": models.load("faces80")}, face, 0.15, RANKS)


def figure_4(there: Found) -> None:
    """C^alpha: slopes of PSNR out against PSNR in, and eigenvectors at sigma = .15."""
    for alpha in sorted(int(d[8:]) for d, *_ in there if d.startswith("c-alpha-")):
        path = next(p for (d, *_), p in there.items() if d == f"c-alpha-{alpha}")
        rows, x = {"theirs": load_released(path)}, c_alpha(IMAGES, alpha, seed=2)
        if alpha <= 5:
            rows["ours"] = models.load(f"c-alpha-{alpha}")
        inputs = -20 * torch.log10(torch.tensor(LEVELS[MIDDLE]) / 255)
        for name, network in rows.items():
            slope = geometry.slope(inputs, torch.tensor([curve(network, x)[MIDDLE]]))
            print(
                f"figure 4: alpha = {alpha}, {name}: slope {float(slope):.2f}; theory {alpha / (alpha + 1):.2f}"
            )
        vectors(f"4-alpha-{alpha}", rows, x[:1], 0.15, tuple(range(1, TOP + 1, 2)))


def figure_5(there: Found) -> None:
    """Disks: eigenvectors at sigma = .04, of which five should span the tangent space."""
    path = next(p for (d, *_), p in there.items() if d == "disks")
    vectors(
        "5",
        {"theirs": load_released(path), "ours": models.load("disks")},
        disks(1, 80, 2),
        0.04,
        tuple(range(1, 11)),
    )


def kept(fig: plt.Figure, name: str) -> None:
    folder = ROOT / "build/authors"
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / f"figure-{name}.png")
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    there = found(parser.parse_args().folder)
    kinds = {data.split("-")[0] for data, *_ in there}
    both = any((d, s) == ("faces", "b") and (d, n, "a") in there for d, n, s in there)
    wanted: dict[Callable[[Found], None], bool] = {
        figure_1: "faces" in kinds, figure_2: both, figure_3: "faces" in kinds,
        figure_4: "c" in kinds, figure_5: "disks" in kinds,
    }  # fmt: skip
    for figure, there_are_weights in wanted.items():
        if there_are_weights:
            figure(there)
    print(f"figures: {ROOT / 'build/authors'}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
