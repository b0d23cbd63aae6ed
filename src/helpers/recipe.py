"""What a training is told: the law of the noise, the loss, the optimiser. Stored with the weights."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import checked_seed, positive, positive_int
from .devices import native

# law of sigma: a batch of uniform and of normal numbers, parameters
NOISE: dict[str, Callable[..., Tensor]] = {
    "log-uniform": lambda u, n, low, high: low * (high / low) ** u,
    "uniform": lambda u, n, low, high: low + (high - low) * u,
    "quadratic": lambda u, n, high: high * u**2,
    "log-normal": lambda u, n, mean, std: torch.exp(mean + std * n),
    "cosine": lambda u, n, low, high: torch.tan(
        math.atan(low) + (math.atan(high) - math.atan(low)) * u
    ),
    "levels": lambda u, n, *levels: (
        torch.tensor(levels)
        .to(u)[(u[0] * len(levels)).long().clamp(max=len(levels) - 1)]
        .expand(len(u))
    ),
    "fixed": lambda u, n, sigma: torch.full_like(u, sigma),
}
# for the 0 that torch.rand gives once in 2^24 numbers, at which a level would be 0
LEAST = 2.0**-25
MOST = 10**8  # images of a batch or of an epoch: the order of those of an epoch is kept in memory
EMA = "take a decay from 0 to below 1, or None"
SNR = {"snr": math.inf, "min-snr": 5.0}  # where the weight 1 / sigma^2 ends
LOSSES = ("edm", "sum", "log", "level", *SNR)
DECAYS: dict[str, Callable[[float], float]] = {  # of the rate, over the share of steps done
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "halving": lambda done: 0.5 ** math.floor(10 * done),
    "none": lambda done: 1.0,
}


@dataclass(frozen=True)
class Recipe:
    r"""How to train; every field is stored with the weights.

    noise: law of the noise level and its parameters, in units of the data: ("log-uniform", low,
        high); ("uniform", low, high); ("quadratic", high), sigma = high u^2 with u uniform, as in
        the released code of Kadkhodaie et al. 2024; ("log-normal", mean, std) of log sigma, as in
        EDM; ("cosine", low, high), even in the angle arctan(sigma), as time is in DDPM with a
        cosine schedule; ("fixed", sigma), one network for one level, as in Levine & Weiss 2026;
        ("levels", sigma_1, ..., sigma_k), one of them for a whole batch, as `PerLevel` needs.
    loss: with e = || D(x + sigma n, sigma) - x ||^2 and d pixels, a mean over the batch:
        "sum" e (Kadkhodaie et al.; large noise rules); "edm" (s^2 + sigma^2) / (s sigma)^2 e / d
        with s the denoiser's data_std (Karras et al. 2022); "log" log(e / d); "level" e / m(sigma),
        with m the running mean of e at that level: so every level counts alike, whatever the
        network can reach there, and as with "sum" and "edm" the posterior mean is the best denoiser
        (the weight of Karras et al. 2024, EDM2, from a table). It is not the best for "log", which
        rewards an exact guess of one of several possible images above all. "snr" e / (d sigma^2),
        the squared error of the predicted noise (DDPM, Ho et al. 2020); "min-snr" the same with a
        weight of at most 5 (Hang et al. 2023).
    rate: of Adam, after `warmup` steps of linear growth; decay: "cosine" to zero, "halving" after
        each tenth of the steps (Kadkhodaie et al.), or "none".
    clip: the largest norm of the gradient. ema: decay of the running average of the weights, which
        is what is delivered. epoch: images per epoch, in which each of the N images comes
        floor(epoch / N) times in random order; what does not fill a batch at its end is left out;
        None draws them independently. flip: mirrors half of the images. precision: "float32", or
        "mixed", products in what `devices.native` says of the network. compiled: by torch.compile.
        Proved: `thm-weights`, `prop-log-loss`.
    """

    steps: int = 3000
    batch: int = 512
    rate: float = 2e-3
    noise: tuple = ("log-uniform", 0.01, 20.0)
    loss: str = "edm"
    decay: str = "cosine"
    warmup: int = 0
    clip: float | None = None
    ema: float | None = None
    epoch: int | None = None
    flip: bool = False
    precision: str = "float32"
    compiled: bool = False
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "steps", positive_int("steps", self.steps))
        object.__setattr__(self, "batch", positive_int("batch", self.batch, most=MOST))
        checked_seed(self.seed)
        words = {"loss": LOSSES, "decay": tuple(DECAYS), "precision": ("float32", "mixed")}
        for name, choices in words.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: choose one of {', '.join(choices)}"
                )
        positive("rate", self.rate, "take a positive number")
        if self.warmup != 0:
            positive("warmup", self.warmup, "take a number of steps, or 0")
        if self.clip is not None:
            positive("clip", self.clip, "take a positive number, or None")
        if self.ema not in (None, 0) and positive("ema", self.ema, EMA) >= 1:
            raise ValueError(f"ema is {self.ema}: {EMA}")
        if self.epoch is not None:
            if positive_int("epoch", self.epoch, most=MOST) < self.batch:
                raise ValueError(
                    f"epoch is {self.epoch}: take at least the batch, {self.batch} images"
                )
        try:
            object.__setattr__(self, "noise", tuple(self.noise))
            (law, *given), ends = (
                self.noise,
                (torch.tensor([LEAST, 1.0]), torch.tensor([-1.0, 1.0])),
            )
            sigma = NOISE[law](*ends, *given)
            good = bool((sigma.isfinite() & (sigma > 0)).all()) and bool(sigma[1] >= sigma[0])
            good = good and all(0 < v < math.inf for v in given if law == "levels")
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError):
            good = False
        if not good:
            raise ValueError(
                f"noise is {self.noise}: take a law with its parameters, as ('log-uniform', 0.01, 20.0), with positive "
                f"levels, the lower first; the laws are {', '.join(NOISE)}"
            )

    def levels(self, batch: int, g: torch.Generator) -> Tensor:
        """`batch` noise levels drawn from the law, (batch,) float32 on the generator's device."""
        name, *parameters = self.noise
        draw = torch.randn if name == "log-normal" else torch.rand
        z = draw(batch, generator=g, device=g.device)
        return NOISE[name](z.clamp(min=LEAST), z, *parameters)

    def products(self, device: torch.device) -> torch.dtype:
        """The float type of a network's products on that device."""
        return native(device) if self.precision == "mixed" else torch.float32

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """In this context a network's products are computed in `products`; sums and weights stay
        float32."""
        dtype = self.products(device)
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
