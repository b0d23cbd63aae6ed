"""Few steps by Permenter & Yuan's sampler and by DDIM: `python benchmarks/projection.py [SECTION
...]`.

digits-N: the exact denoiser of 8x8 digits with a ball of fog around each, N evaluations (needs
scikit-learn). clothes-N: the UNet of 5000 pieces of clothing, N evaluations; clothes-fine: the same
by a fine solver. faces-N, faces-fine: the blind UNet of 9442 faces (needs CELEBA_ROOT, as does
faces-error). digits-error, faces-error: relative error of the projection, along trajectories and on
noisy images.

Each section is written to src/helpers/recorded/projection.json when it is done; *Denoising is
projection* draws it.
"""

from collections.abc import Callable
from functools import partial

import record
import torch
from torch import Tensor

from helpers import metrics, models, realism, sampling
from helpers.data import load
from helpers.denoisers import Denoiser, PosteriorMean
from helpers.systems.permenter_yuan import projection

GAMMAS = [1.0, 1.5, 1.8, 2.0, 2.4]
rounded = partial(record.rounded, digits=5)
WIDTH = 0.1  # of the fog around each digit, intensities from -1 to 1


def digits() -> Tensor:
    """The 1797 digits of scikit-learn as points (1797, 64) in [-1, 1]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit(
            "The digits come with scikit-learn, which the book does not need: pip install it."
        ) from None
    return torch.from_numpy(load_digits().data) / 8 - 1


def of_digits(steps: int, n: int = 2000, seeds: int = 5) -> dict:
    """Frechet distance of pixels for each schedule and gamma; with 5 steps also the exact transport
    distance."""
    law = projection.KernelDensity(digits(), WIDTH)
    real = [law.sample(n, seed=100 + seed) for seed in range(seeds)]
    more = [law.sample(n, seed=200 + seed) for seed in range(seeds)]
    schedules = {
        "Permenter & Yuan": projection.permenter_yuan(steps),
        "DDIM": sampling.ddim_linear(steps),
    }
    if steps <= 10:
        schedules["EDM"] = sampling.edm(steps, 0.01, 40.0)
    rows: list[dict] = []
    transport: dict[str, list[float]] = {}
    if steps == 5:
        pairs = list(zip(real, more, strict=True))[:3]
        transport["two draws of the law"] = [metrics.exact_w2(a[:1000], b[:1000]) for a, b in pairs]
    for name, sigmas in schedules.items():
        for gamma in (
            GAMMAS if steps == 5 or name == "Permenter & Yuan" and steps == 10 else (1.0, 2.0)
        ):
            made = [solve(law, sigmas, gamma, n, (64,), seed) for seed in range(seeds)]
            distances = [realism.frechet(a, b) for a, b in zip(real, made, strict=True)]
            rows.append({"schedule": name, "gamma": gamma, "frechet": rounded(distances)})
            if steps == 5 and name == "DDIM" and gamma in (1.0, 2.0):
                pairs = list(zip(real, made, strict=True))[:3]
                transport[f"DDIM, gamma {gamma:g}"] = [
                    metrics.exact_w2(a[:1000], b[:1000]) for a, b in pairs
                ]
    floor = [realism.frechet(a, b) for a, b in zip(real, more, strict=True)]
    found: dict = {
        "points": 1797,
        "samples": n,
        "seeds": seeds,
        "width": WIDTH,
        "floor": rounded(floor),
        "rows": rows,
    }
    return found | ({"W2": {k: rounded(v) for k, v in transport.items()}} if steps == 5 else {})


def of_clothes(steps: int, n: int = 250, seeds: int = 4) -> dict:
    """Feature distances to test images; schedules in units of [0, 1], half of the paper's."""
    schedules = {
        "Permenter & Yuan": projection.permenter_yuan(steps) / 2,
        "DDIM": sampling.ddim_linear(steps) / 2,
    }
    return judged("clothes", schedules, (1.0, 1.5, 2.0) if steps < 20 else (1.0, 2.0), n, seeds)


def of_faces(steps: int, n: int = 100, seeds: int = 3) -> dict:
    """The same for a network that is not told the noise level and so may not start above 5."""
    schedules = {
        "Permenter & Yuan": projection.permenter_yuan(steps, sigma_max=10.0) / 2,
        "EDM": sampling.edm(steps, 0.01, 5.0),
    }
    return judged("faces", schedules, (1.0, 2.0), n, seeds)


class Case:
    """A network, its judge, test images, and other images that the network has not seen."""

    def __init__(self, kind: str, test: int = 1000):
        clothes = kind == "clothes"
        self.model = "fashion-n5000-a" if clothes else "faces-n9442-a"
        self.network, judge = (
            models.load(name)
            for name in (self.model, f"{'fashion' if clothes else 'faces'}-autoencoder")
        )
        data, self.size = ("fashion-mnist", 32) if clothes else ("celeba", 40)
        # half as fast again on a CPU
        self.network = self.network.to(memory_format=torch.channels_last)
        self.gray = 0.0 if clothes else models.manifest()[self.model]["mean"]
        self.features: Callable[[Tensor], Tensor] = judge.features
        self.test = self.features(load(data, "test", test, self.size).images)
        self.others = self.features(load(data, "disjoint", 5000, self.size).images)

    def distances(self, features: Tensor) -> tuple[float, float]:
        return realism.kid(self.test, features), realism.fid(self.test, features)


def judged(
    kind: str, schedules: dict[str, Tensor], gammas: tuple[float, ...], n: int, seeds: int
) -> dict:
    case, rows = Case(kind), []
    for name, sigmas in schedules.items():
        for gamma in gammas:
            found = []
            for seed in range(seeds):
                made = solve(
                    case.network, sigmas.float(), gamma, n, (case.size,) * 2, seed, case.gray
                )
                found.append(case.distances(case.features(made)))
            kid, fid = zip(*found, strict=True)
            rows.append(
                {"schedule": name, "gamma": gamma, "kid": rounded(kid), "fid": rounded(fid)}
            )
    floor = [case.distances(part) for part in case.others.split(n)[:seeds]]
    return {
        "model": case.model,
        "images": n,
        "seeds": seeds,
        "judged on": f"{len(case.test)} test images",
        "floor": dict(zip(("kid", "fid"), map(rounded, zip(*floor, strict=True)), strict=True)),
        "rows": rows,
    }


def fine(kind: str, steps: int, n: int, seeds: int) -> dict:
    """What the network itself generates: Heun, two evaluations a step but the last."""
    case, found = Case(kind), []
    sigmas = sampling.edm(steps, 0.005, 20.0 if kind == "clothes" else 5.0).float()
    for seed in range(seeds):
        start = (
            case.gray
            + sampling.initial_noise(
                n, case.size, case.size, sigma=float(sigmas[0]), seed=seed
            ).float()
        )
        parts = [sampling.last(sampling.heun(case.network, y, sigmas)) for y in start.split(25)]
        found.append(case.distances(case.features(torch.cat(parts))))
    kid, fid = map(rounded, zip(*found, strict=True))
    return {
        "model": case.model,
        "images": n,
        "seeds": seeds,
        "evaluations": 2 * steps - 1,
        "kid": kid,
        "fid": fid,
    }


def solve(
    denoiser: Denoiser,
    sigmas: Tensor,
    gamma: float,
    n: int,
    event: tuple[int, ...],
    seed: int,
    gray: float = 0.0,
) -> Tensor:
    """n samples by gradient estimation, (n, *event), in parts that fit into a cache."""
    start = gray + sampling.initial_noise(n, *event, sigma=float(sigmas[0]), seed=seed).to(sigmas)
    parts = start.split(25 if len(event) > 1 else n)
    return torch.cat(
        [sampling.last(sampling.gradient_estimation(denoiser, y, sigmas, gamma)) for y in parts]
    )


def along(denoiser: Denoiser, points: Tensor, start: Tensor, sigmas: Tensor) -> dict:
    """Quartiles over the particles of the relative error and of sqrt(d) sigma / dist, at each level
    of a trajectory."""
    eta, distance = projection.errors_along(denoiser, points, start, sigmas)
    ratio = points[0].numel() ** 0.5 * sigmas[:-1, None] / distance[:-1]
    quarters = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return {
        name: rounded(v.double().nanquantile(quarters, dim=1))
        for name, v in (("eta", eta), ("ratio", ratio))
    }


def digits_error(n: int = 300) -> dict:
    points, sigmas = digits(), sampling.log_linear(51, 0.01, 40.0)[:-1]
    start = sampling.initial_noise(n, 64, sigma=40.0, seed=0)
    return {
        "sigmas": rounded(sigmas[:-1]),
        "particles": n,
        "exact": along(PosteriorMean(points), points, start, sigmas),
    }


@torch.no_grad()
def faces_error(n: int = 48) -> dict:
    """faces-n1000-a and the exact denoiser of the same 1000 faces; and the network on noisy test
    faces."""
    points, card = load("celeba", n=1000, size=40).images, models.manifest()["faces-n1000-a"]
    network, sigmas = models.load("faces-n1000-a"), sampling.log_linear(41, 0.005, 5.0)[:-1].float()
    start = card["mean"] + sampling.initial_noise(n, 40, 40, sigma=5.0, seed=0).float()
    test, noise = (
        load("celeba", "test", n, 40).images,
        sampling.initial_noise(n, 40, 40, sigma=1.0, seed=1).float(),
    )
    noisy = [
        float(
            (
                (network(test + s * noise, s) - test).flatten(1).norm(dim=1)
                / (s * noise).flatten(1).norm(dim=1)
            ).median()
        )
        for s in sigmas[:-1].tolist()
    ]
    return {
        "model": "faces-n1000-a",
        "sigmas": rounded(sigmas[:-1]),
        "particles": n,
        "exact": along(PosteriorMean(points), points, start, sigmas),
        "network": along(network, points, start, sigmas),
        "noisy test images": rounded(noisy),
    }


SECTIONS = {
    **{f"digits-{n}": lambda n=n: of_digits(n) for n in (5, 10, 20, 50)},
    **{f"clothes-{n}": lambda n=n: of_clothes(n) for n in (5, 10, 20, 50)},
    "clothes-fine": lambda: fine("clothes", 25, 125, 4),
    "faces-fine": lambda: fine("faces", 16, 100, 3),
    **{f"faces-{n}": lambda n=n: of_faces(n) for n in (5, 10, 20, 50)},
    "digits-error": digits_error,
    "faces-error": faces_error,
}

if __name__ == "__main__":
    record.main(__doc__, "projection", SECTIONS)
