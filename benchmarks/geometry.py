"""Networks on C^alpha images: `python benchmarks/geometry.py [SECTION ...]`. Needs no data.

curves: output against input PSNR of the five networks on test images, beside fixed bases and an
informed floor; slopes.
bases: the leading eigenvectors of their Jacobians, and where these lie and how they oscillate,
against alpha and level.
contours: the paper's figure 17 at 40 x 40: three networks, each trained here (about a minute) on
images with contours of one regularity and smooth backgrounds; how much of their eigenvectors lies
near the contour.

Each section is written to src/helpers/recorded/geometry.json when it is done; *Near-optimal on
C^alpha images* draws from it.
"""

from dataclasses import replace

import record
import torch
from harmonics import png
from record import SEED, noisy, rounded
from scipy.stats import spearmanr

from helpers import geometry, models
from helpers.data.synthetic import c_alpha
from helpers.denoisers import Denoiser, UNet
from helpers.experiments.zoo import BASE
from helpers.jacobian import Jacobian, eigen
from helpers.systems.kadkhodaie import eigenbasis, harmonics
from helpers.training import run, train

ALPHAS, TEST, TRAIN = (1, 2, 3, 4, 5), 2, 0  # the seeds are those of `load`'s splits
LEVELS = [10 ** (k * 2.5 / 9) / 255 for k in range(10)]  # the grid of the released code
# first and last level
RANGES = {"all": (0, 9), "middle": (2, 7), "low noise": (2, 5), "high noise": (5, 9)}
TOP = 20


def curves(images: int = 64, spun: int = 16) -> dict:
    """Mean PSNR at each level, in dB; slopes with the half width of their 95 % interval over
    images."""
    inputs, found = -20 * torch.tensor(LEVELS, dtype=torch.float64).log10(), {}
    for alpha in ALPHAS:
        x, parts = (
            c_alpha(images, alpha, seed=TEST),
            geometry.c_alpha_parts(images, alpha, seed=TEST),
        )
        network, waves, wavelets = (
            models.load(f"c-alpha-{alpha}"),
            geometry.cosines(x),
            geometry.wavelets(x),
        )
        power = geometry.cosines(c_alpha(1000, alpha, seed=TRAIN)).square().mean(0)
        rows: dict[str, list] = {}
        for sigma in LEVELS:
            y = noisy(x, sigma)
            with torch.no_grad():
                x_hat = torch.cat([network(part, sigma) for part in y.split(16)])
            errors = {
                "network": (x_hat - x).double().square().sum((1, 2)),
                "wavelets, oracle": geometry.oracle_risk(wavelets, sigma),
                "cosines, oracle": geometry.oracle_risk(waves, sigma),
                "cosines, Wiener": geometry.risk(waves, power / (power + sigma**2), sigma),
                "wavelets, cycle-spun": (geometry.cycle_spun(y[:spun], sigma) - x[:spun])
                .square()
                .sum((1, 2)),
                "informed": geometry.informed_risk(parts, alpha, sigma),
            }
            for name, error in errors.items():
                rows.setdefault(name, []).append(-10 * (error / x[0].numel()).log10())
        tables = {name: torch.stack(row, 1) for name, row in rows.items()}  # (images, levels)
        found[str(alpha)] = {
            "psnr": {name: rounded(t.mean(0), 3) for name, t in tables.items()},
            "slopes": {
                name: {k: slope(inputs, t, *ends) for k, ends in RANGES.items()}
                for name, t in tables.items()
            },
        }
        print(alpha, {k: v["middle"] for k, v in found[str(alpha)]["slopes"].items()}, flush=True)
    return {"images": images, "cycle-spun images": spun, "seed": SEED, "sigmas": [round(s, 5) for s in LEVELS],
            "input": rounded(inputs, 3), "ranges": RANGES, "alphas": found}  # fmt: skip


def slope(inputs: torch.Tensor, psnr: torch.Tensor, first: int, last: int) -> list[float]:
    each = geometry.slope(inputs[first : last + 1], psnr[:, first : last + 1])
    return [round(float(each.mean()), 4), round(float(1.96 * each.std() / len(each) ** 0.5), 4)]


def portrait(
    network: Denoiser,
    x: torch.Tensor,
    rows: torch.Tensor,
    others: torch.Tensor,
    sigma: float,
    basis: int,
):
    """Measures of one Jacobian; `others` is the contour of another image, the control."""
    values, e, residuals = eigen(Jacobian(network, x, sigma), TOP, basis)
    here, there = geometry.near(rows), geometry.near(others)
    along, across = geometry.oscillation(e, rows)
    along_other, across_other = geometry.oscillation(e, others)
    # of what lies far from the contour, its direction there says nothing
    weight = eigenbasis.energy_on(e, here)
    weight_other = eigenbasis.energy_on(e, there)
    rate = eigenbasis.frequency(e)
    on = weight > 0.5
    return {
        "values": values, "residual": residuals.max(), "frequency": rate,
        "share near": weight.mean(), "near": weight.mean() / here.double().mean(),
        "near another": weight_other.mean() / there.double().mean(),
        "near the first five": weight[:5].mean() / here.double().mean(),
        "along": (weight * along).sum() / weight.sum(), "across": (weight * across).sum() / weight.sum(),
        "along another": (weight_other * along_other).sum() / weight_other.sum(),
        "across another": (weight_other * across_other).sum() / weight_other.sum(),
        "rank of frequency": float(spearmanr(range(TOP), rate)[0]),
        "on the contour": on.double().sum(),
    }  # fmt: skip


def mean(portraits: list[dict]) -> dict:
    stacked = {
        k: torch.stack([torch.as_tensor(p[k], dtype=torch.float64) for p in portraits])
        for k in portraits[0]
    }
    return {k: rounded(v.mean(0), 4) for k, v in stacked.items()}


def bases(images: int = 2, basis: int = 160) -> dict:
    """Means over test images, for each alpha a row of levels."""
    levels, found = (0.05, 0.15, 0.4), {}
    for alpha in ALPHAS:
        network, x = models.load(f"c-alpha-{alpha}"), c_alpha(images + 1, alpha, seed=TEST)
        rows = geometry.c_alpha_parts(images + 1, alpha, seed=TEST).rows
        found[str(alpha)] = [
            mean(
                [
                    portrait(network, noisy(x, s)[i : i + 1], rows[i], rows[i + 1], s, basis)
                    for i in range(images)
                ]
            )
            for s in levels
        ]
        print(
            alpha,
            [(m["values"][0], m["near"], m["along"], m["across"]) for m in found[str(alpha)]],
            flush=True,
        )
    return {
        "images": images,
        "top": TOP,
        "basis": basis,
        "seed": SEED,
        "levels": list(levels),
        "alphas": found,
    }


def contours(images: int = 3, seen: int = 12_000, size: int = 40, beta: float = 8) -> dict:
    """Every network on the images of every contour, so that the image and the training can be told
    apart. Pictures: of the first eight draws that of greatest contrast, to the network of its kind."""
    sigma, regularities, found, curve, pictures = 0.2, (1.5, 2, 4), {}, {}, {}
    parts = geometry.c_alpha_parts(8, 4, beta, size, seed=TEST)
    drawn = int(harmonics.contrast(parts.backgrounds, parts.rows).argmax())
    for trained in regularities:
        data = c_alpha(8000, trained, beta, size, seed=TRAIN)
        network = UNet(
            blocks=2, channels=12, normalisation="none", data_std=round(float(data.std()), 3)
        )
        run(train(network, data, replace(BASE, steps=seen // BASE.batch)))
        for shown in regularities:
            x, rows = (
                c_alpha(64, shown, beta, size, seed=TEST),
                geometry.c_alpha_parts(64, shown, beta, size, seed=TEST).rows,
            )
            y = noisy(x, sigma)
            with torch.no_grad():
                error = (network(y, sigma) - x).double().square().mean((1, 2))
            curve[f"{trained} on {shown}"] = round(float(-10 * error.log10().mean()), 2)
            found[f"{trained} on {shown}"] = mean(
                [
                    portrait(network, y[i : i + 1], rows[i], rows[i + 1], sigma, 96)
                    for i in range(images)
                ]
            )
        x = c_alpha(8, trained, beta, size, seed=TEST)[drawn : drawn + 1]
        e = eigen(Jacobian(network, noisy(x, sigma), sigma), 10, 96)
        pictures[str(trained)] = {
            "image": png(x - 0.5),
            "values": rounded(e.values),
            "vectors": png(e.vectors),
        }
        print(
            trained,
            {k: (v["share near"], v["near"], v["on the contour"]) for k, v in found.items()},
            flush=True,
        )
    return {"images": images, "images seen": seen, "size": size, "beta": beta, "sigma": sigma, "top": TOP, "seed": SEED,
            "regularities": list(regularities), "psnr": curve, "measured": found,
            "pictures": pictures}  # fmt: skip


SECTIONS = {"curves": curves, "bases": bases, "contours": contours}

if __name__ == "__main__":
    record.main(__doc__, "geometry", SECTIONS)
