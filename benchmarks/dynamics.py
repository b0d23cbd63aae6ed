"""Training time and linear parts, where they are slow: `python benchmarks/dynamics.py [SECTION
...]`.

times: when random features learn and when they overfit, against the number of points and of
features, three seeds.
copies: what random features generate through training time, for several numbers of points.
linear-10, linear-5000: how linear the networks of that many pieces of clothing are, level by level.
teleport: the exact flow of a Gaussian in place of the first steps of a sampler, networks of 5000
and of 10.

Each section is written to src/helpers/recorded/dynamics.json when it is done; *When does
memorisation set in?* draws it. Only the images of this package are used.
"""

from functools import partial

import record
import torch
from record import rounded

from helpers import models
from helpers.data import load
from helpers.denoisers import LinearDenoiser
from helpers.metrics import share_of_copies
from helpers.sampling import edm, euler, heun, initial_noise, last
from helpers.systems.bonnaire.dynamics import FeatureDenoiser, Flow, SineFeatures, moments, onset
from helpers.systems.bonnaire.gaussian import gaussian_flow

TIMES = torch.logspace(-2, 6, 161, dtype=torch.float64)
LEVELS = (0.05, 0.2, 0.5, 1.0, 3.0)


def times(d: int = 16, sigma: float = 0.3, gain: float = 1.4, seeds: int = 3) -> dict:
    """Gaussian data of variance 1. Times are read from the curves by
    `helpers.systems.bonnaire.dynamics.onset`."""
    rows, law = [], torch.eye(d, dtype=torch.float64)
    cases = [(n, 768) for n in (32, 64, 128, 256, 512)] + [(64, p) for p in (128, 192, 384)]
    for n, p in cases:
        for seed in range(seeds):
            x = torch.randn(
                n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            )
            features = SineFeatures.random(p, d, gain, seed=1000 + seed)
            flow = Flow(moments(features, x, sigma))
            test = flow.losses(TIMES, moments(features, torch.zeros(1, d), sigma, law))
            found = onset(TIMES, flow.losses(TIMES), test)
            rows.append(
                {"n": n, "p": p, "seed": seed}
                | {k: float(f"{v:.5g}") for k, v in found._asdict().items()}
            )
    return {"d": d, "sigma": sigma, "gain": gain, "seeds": seeds, "rows": rows}


def copies(d: int = 8, p: int = 768, gain: float = 2.0, samples: int = 400) -> dict:
    """Share of copies, by the flow from the same noise, of features trained on the first n of one
    draw."""
    points = torch.randn(64, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    schedule, at = (
        edm(10, sigma_min=0.05, sigma_max=6.0),
        torch.logspace(0, 6, 19, dtype=torch.float64),
    )
    start = initial_noise(samples, d, sigma=6.0, seed=1)  # not the points' seed
    shares = {}
    for n in (8, 16, 32, 64):
        denoiser = FeatureDenoiser(points[:n], p, gain, seed=2)
        shares[str(n)] = []
        for time in at.tolist():
            denoiser.time = time
            made = last(euler(denoiser, start + denoiser.centre, schedule))
            shares[str(n)].append(round(share_of_copies(made, points[:n]), 4))
    return {
        "d": d,
        "p": p,
        "gain": gain,
        "samples": samples,
        "times": rounded(at),
        "shares": shares,
    }


@torch.no_grad()
def linear(n: int, fitted: int = 2000, held_out: int = 400, axes: int = 64) -> dict:
    """How well affine maps of noisy clothes give a network's answers: Wiener's filter, and the best
    one.

    The best is a regression on the coordinates along the leading principal axes, and Wiener's
    filter beyond. All shares are of what is left over by clothes and noise that no map was fitted
    to.
    """
    network = models.load(f"fashion-n{n}-a")
    pool, test = load("fashion-mnist").images, load("fashion-mnist", "test", held_out).images
    wiener, own = LinearDenoiser.from_points(pool), LinearDenoiser.from_points(pool[:n])
    u, lam = wiener.axes[:, :axes].double(), wiener.variances[:axes].double()
    g, rows, k = torch.Generator().manual_seed(0), [], held_out // 2
    for sigma in LEVELS:
        x = torch.cat([pool[torch.randperm(len(pool), generator=g)[:fitted]], test])
        y = x + sigma * torch.randn(x.shape, generator=g)
        answer = torch.cat([network(part, sigma) for part in y.split(100)])
        z, rest = (
            (y - wiener.mean).flatten(1).double() @ u,
            (answer - wiener(y, sigma)).flatten(1).double(),
        )
        mean = rest[:fitted].mean(0)
        more = torch.linalg.lstsq(z[:fitted], rest[:fitted] - mean).solution
        best = (lam / (lam + sigma**2)).diag() + more @ u
        after = {
            "wiener": rest[fitted:],
            "own": (answer - own(y, sigma)).flatten(1).double()[fitted:],
            "best": rest[fitted:] - mean - z[fitted:] @ more,
        }
        a, r = answer.flatten(1).double()[fitted:], (answer - y).flatten(1).double()[fitted:]
        of_answer, of_score = ((v - v.mean(0)).square().sum() for v in (a, r))
        mixed = wiener.mean + 2**-0.5 * (y[fitted : fitted + k] + y[fitted + k :] - 2 * wiener.mean)
        summed = 2**-0.5 * (a[:k] + a[k:] - 2 * wiener.mean.flatten())
        cosine = torch.cosine_similarity(
            (network(mixed, sigma) - wiener.mean).flatten(1), summed
        ).mean()
        rows.append({
            "sigma": sigma,
            **{f"{name} of answer": round(1 - float(v.square().sum() / of_answer), 5) for name, v in after.items()},
            **{f"{name} of score": round(1 - float(v.square().sum() / of_score), 5) for name, v in after.items()},
            "distance": round(float((best - best.diagonal().diag()).norm() / best.norm()), 4),
            "gains": rounded(best.diagonal()),
            "additive": round(float(cosine), 4),
        })  # fmt: skip
    return {
        "model": f"fashion-n{n}-a", "fitted": fitted, "held_out": held_out, "variances": rounded(lam, 5), "rows": rows
    }  # fmt: skip


@torch.no_grad()
def teleport(images: int = 16) -> dict:
    """Root mean square distance, a pixel, to the fine flow of the network from the same noise,
    sigma 20 to .02."""
    pool, found = load("fashion-mnist").images, {}
    steps, jumps = (4, 6, 9, 14), (20.0, 8.0, 4.0, 2.0, 1.0, 0.5)
    for n in (5000, 10):
        network = models.load(f"fashion-n{n}-a")
        gaussian = LinearDenoiser.from_points(pool[:n])
        y = gaussian.mean + initial_noise(images, 32, 32, sigma=20.0, seed=0).float()
        fine = last(heun(network, y, edm(32, 0.02, 20.0).float()))
        rows = []
        for sigma in jumps:
            start = gaussian_flow(gaussian, y, 20.0, sigma)
            for k in steps if n == 5000 else (9,):
                made = last(heun(network, start, edm(k, 0.02, sigma).float()))
                rows.append(
                    [sigma, 2 * k - 1, round(float((made - fine).square().mean().sqrt()), 5)]
                )
        found[str(n)] = rows
    return {"images": images, "columns": ["sigma", "calls", "distance"], "rows": found}


SECTIONS = {
    "times": times,
    "copies": copies,
    **{f"linear-{n}": partial(linear, n) for n in (10, 5000)},
    "teleport": teleport,
}

if __name__ == "__main__":
    record.main(__doc__, "dynamics", SECTIONS)
