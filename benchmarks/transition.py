"""When do face denoisers stop copying? `python benchmarks/transition.py [SECTION ...]` (needs
CELEBA_ROOT).

faces: networks of two disjoint sets of N faces, the same noise through both: how alike are the two
    samples, and how alike is each to the nearest image of its own training set?
starts: the same by samplers that start where the paper's does.
patches: where do the patches of a sample come from?
pictures: a few of those samples between the training faces that are nearest to them, and what the
    networks look for: eigenvectors of their Jacobians at one noisy image.
repeats: the closest pairs between the two sets, and what was removed as a repeat.
paths: how alike the estimates of the two networks are on the way down.
sizes: the gap between training and test PSNR against N for images of three sizes; trains nine small
    networks, goes on from build/transition after a kill.
chains: PSNR and samples of convolutional chains without pooling, two for each N; trains ten, and
goes on as well.

Each section is written to src/helpers/recorded/transition.json when it is done; *From copying to
generalising* draws from it.
"""

import itertools
from dataclasses import replace
from functools import cache

import record
import torch
from record import SEED, encoded, noisy, rounded
from torch import Tensor

from helpers import metrics, models, plots, sampling
from helpers.data import load
from helpers.denoisers import Denoiser
from helpers.experiments import runner
from helpers.experiments.zoo import BASE, Entry
from helpers.jacobian import Jacobian, eigen

COUNTS, SIZE, NOISES = (1, 10, 100, 1000, 9442), 40, 64
SETS = {"a": "train", "b": "disjoint"}
# and the noise level from which each starts; the last is Kadkhodaie et al.'s own
SAMPLERS = {"reverse SDE": 5.0, "ODE": 5.0, "reverse SDE from 1": 1.0, "Algorithm 1": 1.0}
RANKS = (1, 2, 4, 8, 16, 32, 64)  # of eigenvectors that are drawn


@cache
def images(letter: str, n: int | None = None, size: int = SIZE) -> Tensor:
    return load("celeba", SETS.get(letter, letter), n, size).images


def initial(size: int = SIZE, sigma: float = 5.0) -> Tensor:
    """The start of all samplers: one noise around one gray."""
    gray = models.manifest()["faces-n9442-a"]["mean"]
    return gray + sampling.initial_noise(NOISES, size, size, sigma=sigma, seed=SEED).float()


def path(n: int, letter: str, sampler: str) -> Tensor:
    """Estimates of one network at every step, (steps, noises, h, w), from the noise that all of
    them get."""
    models.load(f"faces-n{n}-{letter}")  # so that every section names the networks that it is about
    return _path(n, letter, sampler)


@cache
def _path(n: int, letter: str, sampler: str) -> Tensor:
    start = initial(sigma=SAMPLERS[sampler])
    return estimates(models.load(f"faces-n{n}-{letter}"), start, sampler)


@torch.no_grad()
def estimates(denoiser: Denoiser, start: Tensor, sampler: str) -> Tensor:
    sigmas = sampling.edm(60, 0.02, SAMPLERS[sampler]).float()
    if sampler == "ODE":
        states = sampling.euler(denoiser, start, sigmas)
    elif sampler == "Algorithm 1":  # with the growing steps of the released code
        states = sampling.stochastic_ascent(denoiser, start, 1.0, growing=True, seed=SEED)
    else:
        states = sampling.reverse_sde(denoiser, start, sigmas, seed=SEED)
    return torch.stack([state.x_hat for state in states])


def made(n: int, letter: str, sampler: str = "reverse SDE") -> Tensor:
    return path(n, letter, sampler)[-1]  # the step to level 0 ends at its estimate


@cache
def features(x: Tensor) -> Tensor:
    """Of the book's autoencoder, less the mean of test faces, so that angles between them tell
    something."""
    judge = models.load("faces-autoencoder")
    return judge.features(x) - judge.features(images("test", 1000)).mean(0)


def alike(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Similarities of all pairs by the three measures."""
    models.load("faces-autoencoder")  # as in `path`
    pixels = {
        "centred": metrics.similarity(a, b),
        "uncentred": metrics.similarity(a, b, centred=False),
    }
    return pixels | {"features": metrics.similarity(features(a), features(b), centred=False)}


def webp(batch: Tensor, columns: int) -> str:
    """Images (n, h, w), or (n, 3, h, w) in colour, in rows of so many: WebP in base64."""
    rows = [torch.cat(list(row), dim=-1) for row in batch.split(columns)]
    sheet = (255 * torch.cat(rows, dim=-2)).round().clip(0, 255)
    return encoded(sheet, "WEBP", quality=85, method=6)


def compared(*samplers: str) -> list[dict]:
    """Similarity of the two samples of each noise, and of each to the nearest image of its own set."""
    rows = []
    for sampler in samplers:
        for n in COUNTS:
            a, b = (made(n, letter, sampler) for letter in SETS)
            own = {letter: alike(made(n, letter, sampler), images(letter, n)) for letter in SETS}
            row: dict = {"N": n, "sampler": sampler}
            for measure, pair in alike(a, b).items():
                near = torch.stack([own[letter][measure].amax(1) for letter in SETS])
                row[measure] = {"between": rounded(pair.diag(), 3), "own": rounded(near, 3)}
            apart = {
                (letter, other): metrics.nearest(made(n, letter, sampler), images(other, n), 1)[0][
                    :, 0
                ]
                for letter, other in itertools.product(SETS, SETS)
            }
            row["closeness"] = rounded(
                [(apart[s, s] / apart[s, t]).tolist() for s, t in ("ab", "ba")], 3
            )
            row["own distance"] = rounded([(apart[s, s] / SIZE).tolist() for s in SETS], 4)
            row["apart"] = rounded((a - b).flatten(1).norm(dim=1) / SIZE, 4)
            row["diverged"] = metrics.diverged(a) + metrics.diverged(b)
            rows.append(row)
    return rows


def faces() -> dict:
    """From sigma = 5, and what faces that no network has made show."""
    rows = compared("reverse SDE", "ODE")
    real, other = images("test", 1000)[:NOISES], images("test", 1000)[NOISES : 2 * NOISES]
    unseen: dict = {"apart": rounded((real - other).flatten(1).norm(dim=1) / SIZE, 4)}
    unseen |= {"pairs": {k: rounded(v.diag(), 3) for k, v in alike(real, other).items()}}
    for n in COUNTS:  # what a face from the same law, which no network has made, would show
        unseen[str(n)] = {k: rounded(v.amax(1), 3) for k, v in alike(real, images("a", n)).items()}
    return {"noises": NOISES, "size": SIZE, "rows": rows, "test faces": unseen}


def starts() -> dict:
    """From sigma = 1, where the paper's sampler starts, by it and by the reverse SDE."""
    rows = compared("Algorithm 1", "reverse SDE from 1")
    return {"noises": NOISES, "size": SIZE, "rows": rows}


def patches(side: int = 10) -> dict:
    """Share of a sample's patches from its most frequent source, number of sources, and similarity
    to them."""
    rows = []
    for n in COUNTS[1:]:
        for what, x in (("samples", made(n, "a")), ("test faces", images("test", 1000)[:NOISES])):
            index, similarity = metrics.patch_sources(x, images("a", n), side)
            whole = metrics.similarity(x, images("a", n)).amax(1)
            valid = [i[i >= 0] for i in index]  # a constant patch comes from nowhere
            most = torch.stack([i.bincount(minlength=n).amax() / max(len(i), 1) for i in valid])
            sources = [len(i.unique()) for i in valid]
            found = {
                "most": most,
                "sources": torch.tensor(sources, dtype=torch.float),
                "patch": similarity.nanmean(1),
            }
            rows.append(
                {"N": n, "of": what, "whole": rounded(whole, 3)}
                | {k: rounded(v, 3) for k, v in found.items()}
            )
    return {"side": side, "patches": (SIZE // side) ** 2, "rows": rows}


def pictures(shown: int = 4) -> dict:
    """Four rows for each N and sampler as in the paper's Fig. 2, nearest face of set a, sample of its
    network, sample of the other one, nearest face of set b; and eigenvectors at one noisy sample of
    the network of the most faces."""
    rows, eigenvectors = [], []
    for n, sampler in itertools.product(COUNTS, ("reverse SDE", "Algorithm 1")):
        start = initial(sigma=SAMPLERS[sampler])[:shown]
        some, near = {}, {}
        for letter in SETS:
            denoiser, own = models.load(f"faces-n{n}-{letter}"), images(letter, n)
            some[letter] = estimates(denoiser, start, sampler)[-1]
            near[letter] = own[metrics.similarity(some[letter], own).argmax(1)]
        sheet = torch.cat([near["a"], some["a"], some["b"], near["b"]])
        rows.append({"N": n, "sampler": sampler, "webp": webp(sheet, shown)})
    clean, at = some["a"][:1], torch.tensor(RANKS) - 1
    y = noisy(clean, 0.15)
    for n in COUNTS:
        space = eigen(Jacobian(models.load(f"faces-n{n}-a"), y, 0.15), max(RANKS), 5 * max(RANKS))
        drawn = plots.signed(space.vectors[at]).permute(0, 3, 1, 2)
        values = rounded(space.values[at], 3)
        eigenvectors.append({"N": n, "values": values, "webp": webp(drawn, len(RANKS))})
    about = {"size": SIZE, "columns": shown, "ranks": list(RANKS), "sigma": 0.15}
    return about | {
        "rows": rows,
        "eigenvectors": eigenvectors,
        "at": webp(torch.cat([clean, y]), 2),
    }


def repeats() -> dict:
    """For each face of set a, the most similar of set b (centred, 20 x 20 block means, as repeats
    are removed)."""
    small = [
        torch.nn.functional.avg_pool2d(images(letter, 9442)[:, None], 2)[:, 0] for letter in SETS
    ]
    closest = torch.cat(
        [metrics.similarity(block, small[1]).amax(1) for block in small[0].split(512)]
    )
    counts = torch.histc(closest, 50, 0.5, 1.0)
    about = {
        "N": 9442,
        "low": 0.5,
        "high": 1.0,
        "below": int((closest < 0.5).sum()),
        "counts": counts.int().tolist(),
    }
    return about | {
        "largest": round(float(closest.max()), 4),
        "median": round(float(closest.median()), 4),
    }


def paths() -> dict:
    """Similarity (centred) of the two networks' estimates at each level, every noise, by the ODE."""
    sigmas = sampling.edm(60, 0.02, 5.0)
    rows = []
    for n in COUNTS[2:]:
        a, b = (path(n, letter, "ODE") for letter in SETS)
        along = torch.stack([metrics.pearson(x, y) for x, y in zip(a, b, strict=True)])
        rows.append({"N": n, "similarity": rounded(along.T, 3)})
    return {"noises": NOISES, "sigmas": rounded(sigmas[:-1], 5), "rows": rows}


# blocks of the UNet for images of so many pixels a side, as in the paper's Table 1
SCALES = {20: 1, 40: 2, 80: 3}


def sizes(steps: int = 2500, count: int = 200) -> dict:
    """Training less test PSNR, mean over ten levels in [0, 1] as in the paper's Fig. 15; equal
    images seen by all."""
    levels, rows = tuple(25.5 * k for k in range(1, 11)), []
    for (side, blocks), n in itertools.product(SCALES.items(), (10, 100, 1000)):
        training, test = (
            load("celeba", "train", n, side).images,
            load("celeba", "test", count, side).images,
        )
        options = {"blocks": blocks, "channels": 16, "normalisation": "none"}
        recipe = replace(BASE, steps=steps, noise=("log-uniform", 0.01, 2.0))
        entry = Entry("UNet", options, {"name": "celeba", "n": n, "size": side}, recipe)
        state = record.ROOT / f"build/transition/{side}-{n}-{steps}.safetensors"
        denoiser, _ = runner.trained(entry, state=state)
        parts = (models.repeated(training, count)[:count], test)
        tables = [models.psnr_table(denoiser, part, levels)["psnr"] for part in parts]
        parameters = sum(p.numel() for p in denoiser.parameters())
        row = {
            "side": side,
            "N": n,
            "parameters": parameters,
            "train": tables[0],
            "test": tables[1],
        }
        rows.append(
            row | {"gap": round(sum(a - b for a, b in zip(*tables, strict=True)) / len(levels), 3)}
        )
        print(rows[-1], flush=True)
    return {
        "sigma_of_255": list(levels),
        "images seen": steps * BASE.batch,
        "images": count,
        "rows": rows,
    }


def chains(steps: int = 12_000, size: int = 20, count: int = 200) -> dict:
    """PSNR of chains of convolutions on training and test faces; similarities (centred) of what two
    of them sample."""
    levels, test, start, rows = (10, 25, 50, 100), images("test", count, size), initial(size), []
    recipe = replace(BASE, steps=steps, clip=1.0)
    for n in COUNTS:
        row: dict = {"N": n, "train": [], "test": []}
        own, made = [], []
        for letter in SETS:
            where = {"name": "celeba", "split": SETS[letter], "n": n, "size": size}
            entry = Entry("CNN", {"channels": 24, "normalisation": "none"}, where, recipe)
            state = record.ROOT / f"build/transition/chain-{n}-{letter}-{steps}.safetensors"
            training, (denoiser, _) = images(letter, n, size), runner.trained(entry, state=state)
            for name, part in (("train", models.repeated(training, count)[:count]), ("test", test)):
                row[name].append(models.psnr_table(denoiser, part, levels)["psnr"])
            made.append(estimates(denoiser, start, "reverse SDE")[-1])
            own.append(metrics.similarity(made[-1], training).amax(1))
        row |= {"between": rounded(metrics.pearson(*made), 3), "own": rounded(torch.stack(own), 3)}
        row |= {
            "unseen": rounded(metrics.similarity(test[:NOISES], images("a", n, size)).amax(1), 3)
        }
        rows.append(row | {"diverged": sum(metrics.diverged(x) for x in made)})
        print(
            n,
            row["train"],
            row["test"],
            sum(row["between"]) / NOISES,
            sum(row["own"][0]) / NOISES,
            flush=True,
        )
    about = {
        "size": size,
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "noises": NOISES,
    }
    return about | {
        "sigma_of_255": list(levels),
        "images seen": steps * recipe.batch,
        "images": count,
        "rows": rows,
    }


if __name__ == "__main__":
    measured = (faces, starts, patches, pictures, repeats, paths, sizes, chains)
    record.main(__doc__, "transition", {section.__name__: section for section in measured})
