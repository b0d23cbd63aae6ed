"""Do eigenvectors oscillate faster as their eigenvalues fall? `CELEBA_ROOT=... python
benchmarks/harmonics.py [SECTION ...]`.

faces: the 80 x 80 network at the ranks that Kadkhodaie et al. (2024) draw in figure 3: eigenvectors
at a generated face, to be looked at, and sign changes at test faces, of which no picture leaves
this file.
c-alpha: the twenty leading eigenvectors at images of high contrast, and what contrast does to the
eigenvalues.
ray: error on multiples of one face against the noise level; needs CELEBA_ROOT, as faces does.

Each section is written to src/helpers/recorded/harmonics.json when it is done; the chapters 16 to
18 draw from it.
"""

import record
import torch
from record import SEED, encoded, noisy, rounded
from torch import Tensor
from torch.nn import functional as F

from helpers import geometry, models, sampling
from helpers.data import load
from helpers.data.synthetic import c_alpha
from helpers.denoisers import LinearDenoiser
from helpers.jacobian import Jacobian, eigen
from helpers.systems.kadkhodaie import eigenbasis, harmonics

RANKS = list(range(5, 246, 12))  # of the paper's figure 3
HEAD = list(range(1, 21))
SIGMA = 0.15
CONTRAST = (0.75, 0.85)  # of the C^alpha images whose eigenvectors are looked at
MEASURES = ["along", "per length", "across", "flat", "whole image"]


def png(vectors: Tensor) -> str:
    """Vectors (k, H, W) side by side in 8 bits: 128 is zero, 255 or 1 the pixel farthest from it."""
    levels = 128 + 127 * vectors / vectors.abs().amax((1, 2), keepdim=True)
    return encoded(torch.cat(list(levels.round()), dim=1), "PNG", optimize=True)


def mixed(vectors: Tensor, seed: int = 1) -> Tensor:
    """The same space with other axes, turned at random: what order there was is gone."""
    g = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(len(vectors), len(vectors), generator=g)).Q
    return (turn.to(vectors) @ vectors.flatten(1)).view_as(vectors)


def measured(vectors: Tensor, image: Tensor) -> Tensor:
    """The five measures of each vector, (5, k)."""
    counted = harmonics.sign_changes(vectors, image)
    return torch.stack([*counted, eigenbasis.frequency(vectors)])


def compared(bases: dict[str, list[Tensor]], images: Tensor) -> dict:
    """Of each basis, one for each image: its measures at every rank, mean and half width of the
    95 % interval over images, and their rank correlations, a row for each image.

    The row "another's contour" takes the vectors of "network" with the next image's contour.
    """
    n, found = len(images), {}
    rows = {name: list(zip(vectors, images, strict=True)) for name, vectors in bases.items()}
    rows["another's contour"] = [(bases["network"][i], images[(i + 1) % n]) for i in range(n)]
    for name, pairs in rows.items():
        each = torch.stack([measured(vectors, image) for vectors, image in pairs])
        found[name] = {
            "mean": rounded(each.mean(0), 3),
            "interval": rounded(1.96 * each.std(0) / n**0.5, 3),
            "rises": rounded([[harmonics.rises(row) for row in rows] for rows in each]),
        }
        print(name, torch.tensor(found[name]["rises"]).median(0).values, flush=True)
    return found


def on_edges(vectors: list[Tensor], images: Tensor) -> dict:
    """Energy on the pixels where the image changes most over chance, and on those of the next."""
    masks = [eigenbasis.edges(x) for x in images]

    def over_chance(v: Tensor, mask: Tensor) -> float:
        return float(eigenbasis.energy_on(v, mask).mean() / mask.double().mean())

    own = [over_chance(v, m) for v, m in zip(vectors, masks, strict=True)]
    other = [over_chance(v, m) for v, m in zip(vectors, masks[1:] + masks[:1], strict=True)]
    return {"own": rounded(own), "another": rounded(other)}


def generated() -> Tensor:
    """A face of 80 x 80 pixels, (1, 80, 80): of eight drawn at 40 x 40 the one of greatest
    contrast, doubled, its detail drawn by the larger network from sigma = .15 on.

    The larger network alone sees 44 pixels and puts no face together.
    """
    small, large = models.load("faces-n9442-a"), models.load("faces80")
    start = models.manifest()["faces-n9442-a"]["mean"] + sampling.initial_noise(
        8, 40, 40, sigma=5.0, seed=SEED
    )
    coarse, fine = (
        sampling.edm(n, sigma_min=0.02, sigma_max=s).float() for n, s in ((60, 5.0), (30, SIGMA))
    )
    with torch.no_grad():
        x = sampling.last(sampling.reverse_sde(small, start.float(), coarse, seed=SEED))
        doubled = F.interpolate(x[:, None], scale_factor=2, mode="bicubic")[:, 0]
        x = sampling.last(sampling.reverse_sde(large, noisy(doubled, SIGMA), fine, seed=SEED))
    return x[x.flatten(1).std(1).argmax()][None].clamp(0, 1)


def faces(count: int = 6, basis: int = 512) -> dict:
    network, face = models.load("faces80"), generated()
    x = load("celeba", "test", count, 80).images
    found = []
    for image in torch.cat([face, x]):
        jacobian = Jacobian(network, noisy(image[None], SIGMA), SIGMA)
        found.append(eigen(jacobian, RANKS[-1], basis))
        print(len(found), found[-1].values[[k - 1 for k in RANKS]].tolist(), flush=True)
    wiener = LinearDenoiser.from_points(load("celeba", n=1000, size=80).images)
    axes = wiener.axes.T[: RANKS[-1]].float().view(-1, 80, 80)

    def ranks(vectors: Tensor, shown: list[int]) -> Tensor:
        return vectors[[k - 1 for k in shown]]

    tables = {}
    for part, shown in (("ranks of figure 3", RANKS), ("head", HEAD)):
        bases = {"network": [ranks(e.vectors, shown) for e in found[1:]]}
        bases["mixed"] = [ranks(mixed(e.vectors), shown) for e in found[1:]]
        bases["Wiener's axes"] = [ranks(axes, shown)] * count
        tables[part] = compared(bases, x) | {"edges": on_edges(bases["network"], x)}
    first = found[0]
    return {
        "model": "faces80", "sigma": SIGMA, "faces": count, "basis": basis, "seed": SEED,
        "ranks": RANKS, "measures": MEASURES, **tables,
        "residuals": rounded(torch.stack([e.residuals for e in found]).amax(0)[[k - 1 for k in RANKS]]),
        "generated": {
            "values": rounded(first.values), "face": png(face - 0.5), "vectors": png(ranks(first.vectors, RANKS)),
            "contour": rounded(harmonics.contour(face[0]), 1),
            "coefficients": rounded((first.vectors * face).flatten(1).sum(1).abs()),
        },
    }  # fmt: skip


def chosen(alpha: float, count: int, draws: int = 400) -> list[int]:
    """The first `count` test images whose contrast along the contour lies in CONTRAST."""
    parts = geometry.c_alpha_parts(draws, alpha, seed=2)
    contrast = harmonics.contrast(parts.backgrounds, parts.rows)
    fits = (contrast > CONTRAST[0]) & (contrast < CONTRAST[1])
    return fits.nonzero()[:count, 0].tolist()


def c_alpha_images(count: int = 10, basis: int = 160, drawn: int = 60) -> dict:
    found = {}
    for alpha in (1, 2, 3, 4, 5):
        network, picks = models.load(f"c-alpha-{alpha}"), chosen(alpha, count)
        x = c_alpha(max(picks) + 1, alpha, seed=2)[picks]
        pairs = [eigen(Jacobian(network, noisy(i[None], SIGMA), SIGMA), 20, basis) for i in x]
        wiener = LinearDenoiser.from_points(c_alpha(1000, alpha, seed=0))
        bases = {
            "network": [e.vectors for e in pairs],
            "mixed": [mixed(e.vectors) for e in pairs],
            "Wiener's axes": [wiener.axes.T[:20].float().view(-1, 80, 80)] * count,
        }
        print(alpha, picks, flush=True)
        found[str(alpha)] = {
            "images": picks,
            "values": rounded(torch.stack([e.values for e in pairs])),
            "residual": rounded(torch.stack([e.residuals for e in pairs]).max()),
            **compared(bases, x),
        }
    network, x = models.load("c-alpha-4"), c_alpha(drawn, 4, seed=2)
    parts = geometry.c_alpha_parts(drawn, 4, seed=2)
    first = [eigen(Jacobian(network, noisy(i[None], SIGMA), SIGMA), 20, basis).values for i in x]
    return {
        "sigma": SIGMA, "count": count, "basis": basis, "seed": SEED, "contrast": list(CONTRAST),
        "measures": MEASURES, "alphas": found,
        "drawn": {
            "contrast": rounded(harmonics.contrast(parts.backgrounds, parts.rows)),
            "first": rounded([float(v[0]) for v in first]), "twentieth": rounded([float(v[-1]) for v in first]),
        },
    }  # fmt: skip


def ray(count: int = 256) -> dict:
    """Mean squared error over sigma^2: the optimum has 1 at small noise, and a PSNR of slope 1."""
    network, x = models.load("ray"), load("ray", "test", count, 40).images
    levels, errors = [round(10 ** (k / 6 - 2), 4) for k in range(10)], []
    for sigma in levels:
        with torch.no_grad():
            x_hat = network(noisy(x, sigma), sigma)
        errors.append((x_hat - x).double().flatten(1).square().sum(1))
    psnr = -10 * (torch.stack(errors, 1) / x[0].numel()).log10()
    inputs = -20 * torch.tensor(levels, dtype=torch.float64).log10()
    slopes = torch.stack([geometry.slope(inputs[i : i + 4], psnr[:, i : i + 4]) for i in (0, 3, 6)])
    return {
        "model": "ray", "images": count, "seed": SEED, "sigmas": levels,
        "error": rounded([float(e.mean() / s**2) for e, s in zip(errors, levels, strict=True)], 2),
        "psnr": rounded(psnr.mean(0), 2), "slopes": rounded(slopes.mean(1)),
        "standard errors": rounded(slopes.std(1) / count**0.5),
    }  # fmt: skip


SECTIONS = {"faces": faces, "c-alpha": c_alpha_images, "ray": ray}

if __name__ == "__main__":
    record.main(__doc__, "harmonics", SECTIONS)
