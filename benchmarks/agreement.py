"""How well do closed-form machines foretell trained networks? `python benchmarks/agreement.py
[SECTION ...]`.

clothes-N: the UNet trained on N pieces of clothing against machines on the same N images, from the
same noises. faces-N: the blind UNet trained on N faces, likewise (needs CELEBA_ROOT).
equivariant: ELS and boundary-aware ELS, UNet of 1000 pieces of clothing; equivariant-faces: the
latter, 1000 faces.
mask: the Wiener-masked machine and the batch-dependent softmax of its released code, 1000 pieces of
clothing.

Each section is written to src/helpers/recorded/agreement.json when it is done; *Local machines*
draws from it. The windows of 1000 images serve other sections: run clothes-1000 and faces-1000
first, as no argument does.
"""

import time
from collections.abc import Callable

import record
import torch
from record import rounded

from helpers import metrics, models, sampling
from helpers.data import load
from helpers.denoisers import Denoiser, LinearDenoiser, LocalMean, MaskedMean, PosteriorMean
from helpers.kernels.masked import wiener_masks
from helpers.systems.kamb_ganguli.agreement import calibrate, compare

STEPS, SIGMA_MIN = 20, 0.02
CALIBRATION_SEED, SEED = 1, 0  # noises that choose the windows, and others that judge them


class Case:
    """A network, its training images, its schedule and its noises."""

    def __init__(self, kind: str, n: int):
        name, size, sigma_max = {"clothes": ("fashion", 32, 20.0), "faces": ("faces", 40, 5.0)}[
            kind
        ]
        self.model = f"{name}-n{n}-a"
        self.network = models.load(self.model)
        self.points = load(
            {"clothes": "fashion-mnist", "faces": "celeba"}[kind], n=n, size=size
        ).images
        self.sigmas = sampling.edm(STEPS, SIGMA_MIN, sigma_max).float()
        # a blind network hears no noise level and starts at a mean gray
        self.gray = models.manifest()[self.model]["mean"] if kind == "faces" else 0.0

    def about(self, noises: int) -> dict:
        """What every section says of where its numbers are from."""
        return {
            "model": self.model,
            "seeds": {"noise": SEED, "calibration": CALIBRATION_SEED},
            "noises": noises,
        }

    def start(self, count: int, seed: int) -> torch.Tensor:
        side = self.points.shape[-1]
        return (
            self.gray
            + sampling.initial_noise(
                count, side, side, sigma=float(self.sigmas[0]), seed=seed
            ).float()
        )

    def sample(self, denoiser: Denoiser, count: int, each: int = 16) -> torch.Tensor:
        with torch.no_grad():
            parts = self.start(count, SEED).split(each)
            return torch.cat(
                [sampling.last(sampling.euler(denoiser, y, self.sigmas)) for y in parts]
            )


def agreement(kind: str, n: int, noises: int = 32, calibration: int = 16) -> dict:
    """IS, the linear (Gaussian) denoiser, LS with calibrated windows, and few images also those of
    1000."""
    case = Case(kind, n)
    size = case.points.shape[-1]
    sides = [side for side in range(3, size, 2) if side <= 21 or side % 4 == 3]
    found = calibrate(
        case.network,
        lambda p: LocalMean(case.points, p),
        case.start(calibration, CALIBRATION_SEED),
        case.sigmas,
        sides,
    )
    ideal = calibrate(
        case.network,
        lambda _: PosteriorMean(case.points),
        case.start(calibration, CALIBRATION_SEED),
        case.sigmas,
        [0],
    )
    machines: dict[str, Denoiser] = {
        "IS": PosteriorMean(case.points),
        "LS": LocalMean(case.points, found.table()),
    }
    machines["linear"] = LinearDenoiser.from_points(case.points)
    thousand = record.read("agreement").get(f"{kind}-1000")
    if n < 1000 and thousand:  # windows of a network that generalises
        machines["LS, windows of N = 1000"] = LocalMean(
            case.points, dict(zip(case.sigmas[:-1].tolist(), thousand["best"], strict=True))
        )
    network = case.sample(case.network, noises)
    return {
        **case.about(noises),
        "calibration noises": calibration,
        "sigmas": rounded(case.sigmas, 6),
        "sides": sides,
        "best": found.best(),
        "cosine": rounded(found.cosines.median(2).values, 9),
        "cosine of IS": rounded(ideal.cosines.median(2).values[:, 0], 9),
        "agreement": {name: measures(case, machine, network) for name, machine in machines.items()},
        "unrelated r": rounded(metrics.pearson(network, network.roll(1, 0))),
        "copies": metrics.share_of_copies(network, case.points),
        "moved": rounded(metrics.nearest(network, case.points, 1)[0][:, 0]),
    }


def measures(case: Case, machine: Denoiser, network: torch.Tensor, each: int = 16) -> dict:
    """r and R^2 of each noise, and the seconds that sampling took."""
    begun = time.process_time()
    found = compare(case.sample(machine, len(network), each), network)
    return {k: rounded(found[k]) for k in ("r", "R^2")} | {
        "seconds": round(time.process_time() - begun, 1)
    }


def equivariant(kind: str, noises: int) -> dict:
    """Machines that search all places, with the windows calibrated for LS: calibrating them would
    take days."""
    case, recorded = Case(kind, 1000), record.read("agreement")
    table = dict(zip(case.sigmas[:-1].tolist(), recorded[f"{kind}-1000"]["best"], strict=True))
    network = case.sample(case.network, noises)
    named = {"boundary ELS": "boundary"} | ({"ELS": "equivariant"} if kind == "clothes" else {})
    rows = {
        name: measures(case, LocalMean(case.points, table, m), network, 1)
        for name, m in named.items()
    }
    return {**case.about(noises), "agreement": rows}


class Batched(Denoiser):
    """Means of machines on parts of the training set, weighted alike: a softmax normalised batch by
    batch."""

    def __init__(self, machines: list[Denoiser]):
        super().__init__()
        self.machines = torch.nn.ModuleList(machines)

    def estimate(self, y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.stack([machine(y, sigma) for machine in self.machines]).mean(0)


def mask(noises: int = 8, threshold: float = 0.005) -> dict:
    """Lukoianov et al.'s machine with masks of two covariances, and with its softmax batch by
    batch, as they do."""
    case = Case("clothes", 1000)
    own, many = (
        load("fashion-mnist", n=n, size=32).images.flatten(1).double().T for n in (1000, 10_000)
    )

    def at(covariance: torch.Tensor) -> Callable[[float], torch.Tensor]:
        masks = {
            s: wiener_masks(covariance, s, threshold).float() for s in case.sigmas[:-1].tolist()
        }
        return lambda sigma: masks[min(masks, key=lambda s: abs(s - sigma))]

    seen, population = at(torch.cov(own)), at(torch.cov(many))
    machines = {
        "Wiener mask": MaskedMean(case.points, seen),
        "mask of 10,000": MaskedMean(case.points, population),
        "batches of 100": Batched([MaskedMean(part, seen) for part in case.points.split(100)]),
    }
    network = case.sample(case.network, noises)
    shown = [seen(s).sum(0) for s in case.sigmas[:-1].tolist()]
    return {
        **case.about(noises),
        "threshold": threshold,
        "sigmas": rounded(case.sigmas, 6),
        "pixels in a mask": [round(float(m[m > 0].mean()), 1) for m in shown],
        "agreement": {name: measures(case, machine, network) for name, machine in machines.items()},
    }


SECTIONS = {
    **{f"clothes-{n}": lambda n=n: agreement("clothes", n) for n in (1000, 10, 100, 5000)},
    **{f"faces-{n}": lambda n=n: agreement("faces", n) for n in (1000, 10, 100)},
    "faces-9442": lambda: agreement("faces", 9442, calibration=5),
    "mask": mask,
    "equivariant": lambda: equivariant("clothes", 6),
    "equivariant-faces": lambda: equivariant("faces", 3),
}

if __name__ == "__main__":
    record.main(__doc__, "agreement", SECTIONS)
