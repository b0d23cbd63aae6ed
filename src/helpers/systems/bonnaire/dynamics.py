"""Training in closed form: random features under gradient flow, and the spectra that set the times
of learning.

The model of Bonnaire, Urfin, Biroli and Mezard (2025, arXiv 2505.17638): at one noise level a
network whose first layer is frozen. Its features here are sines, because then the mean over the
noise is a formula and not an estimate.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...checks import checked_points, exact, positive_int, widened
from ...denoisers.base import Denoiser, per_level

# Random features ----------------------------------------------------------------------------------


class SineFeatures(NamedTuple):
    r"""phi(y) = sin(W y + b): weights (p, d) and phases (p,), float64."""

    weights: Tensor
    phases: Tensor

    @classmethod
    def random(
        cls, p: int, d: int, gain: float = 1.0, phases: bool = False, seed: int = 0
    ) -> "SineFeatures":
        """Rows of W from N(0, gain^2 / d I). Phases 0, an odd function as in the theory, or uniform
        on the circle.

        The seed must not be one that the data were drawn from: equal generators would make rows of
        W of the points.
        """
        if not 0 < gain < math.inf:
            raise ValueError(
                f"gain is {gain}: it must be positive and finite, about 1 for inputs of variance 1"
            )
        g = torch.Generator().manual_seed(seed)
        w = torch.randn(
            positive_int("p", p), positive_int("d", d), generator=g, dtype=torch.float64
        )
        b = 2 * math.pi * torch.rand(p, generator=g, dtype=torch.float64)
        return cls(gain / math.sqrt(d) * w, b if phases else torch.zeros_like(b))

    def __call__(self, y: Tensor) -> Tensor:
        """phi of y (batch, d), (batch, p)."""
        return torch.sin(y @ self.weights.to(y).T + self.phases.to(y))


class Moments(NamedTuple):
    """All that the loss of features knows of a law: E phi phi^T (p, p), E phi t^T (p, d), and E
    |t|^2 / d."""

    gram: Tensor
    cross: Tensor
    power: float


def moments(
    features: SineFeatures,
    points: Tensor,
    sigma: float,
    covariance: Tensor | None = None,
    skip: float = 1.0,
) -> Moments:
    r"""Moments of phi(y) and of what is to be learned, t, in closed form: no noise is drawn.

        x ~ mean_i N(x_i, C),   y = x + sigma n,   t = (x - skip y) / (sigma sqrt(skip)).

    A training set has C = 0 (covariance None), a Gaussian law one point. skip = 1 is t = -n: the
    noise. The variance of the data over that of y, as skip, is the preconditioning of Karras et al.
    (2022). With S = C + sigma^2 I, G = W S W^T, e_a = exp(-G_aa / 2), m_ia = w_a x_i + b_a,

        E phi_a phi_b = e_a e_b [ sinh(G_ab) mean_i cos m_ia cos m_ib +
            cosh(G_ab) mean_i sin m_ia sin m_ib ],

    and Stein's lemma gives E phi (y - x_i)^T = e_a cos(m_ia) S w_a. points (N, d), covariance (d,
    d). Proved: `lem-sine-moments`.
    """
    x = exact(checked_points(points))
    w, b = (t.to(x) for t in features)
    if x.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ValueError(
            f"points have shape {tuple(points.shape)}: these features take (N, {w.shape[1]})"
        )
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma is {sigma}: the noise level must be positive and finite")
    if not 0 < skip <= 1:
        raise ValueError(f"skip is {skip}: choose a number in (0, 1], 1 to learn the noise")
    d = x.shape[1]
    c = x.new_zeros(d, d) if covariance is None else covariance.to(x)
    if c.shape != (d, d):
        raise ValueError(f"covariance has shape {tuple(c.shape)}: it must be ({d}, {d})")
    g, m = w @ (c + sigma**2 * torch.eye(d).to(x)) @ w.T, x @ w.T + b
    e, cosine, sine = torch.exp(-g.diagonal() / 2), m.cos(), m.sin()
    even, odd = cosine.T @ cosine / len(x), sine.T @ sine / len(x)
    gram = torch.outer(e, e) * (even * g.sinh() + odd * g.cosh())
    slope = (e * cosine.mean(0))[:, None]
    clean, noise = e[:, None] * (sine.T @ x) / len(x) + slope * (w @ c), slope * sigma**2 * w
    scale = sigma * math.sqrt(skip)
    size = float(x.square().sum(1).mean() + c.trace()) / d
    power = ((1 - skip) ** 2 * size + skip**2 * sigma**2) / scale**2
    return Moments(gram, ((1 - skip) * clean - skip * noise) / scale, power)


class Flow:
    r"""Gradient flow on L(A) = E || A phi(y) / sqrt(p) - t ||^2 / d from A = 0, solved by one
    eigendecomposition.

        dA/dtau = -d^2 grad L   =>   A(tau) / sqrt(p) = V^T U^-1 (I - exp(-2 (d / p) U tau)),

    U = E phi phi^T, V = E phi t^T: an eigenvector of U with eigenvalue lambda is learned at the
    rate 2 lambda d / p. The unit of time is that of Bonnaire et al. (2025): tau = (step size) x
    (steps) / d^2. Their score model has A divided by sigma, which makes it sigma^2 times slower
    (their Delta_t). float64. Proved: `prop-feature-flow`.
    """

    def __init__(self, training: Moments):
        self.training = training
        (p, self.d), values = training.cross.shape, torch.linalg.eigh(training.gram)
        self.values, self.vectors = values.eigenvalues, values.eigenvectors  # ascending
        self.rates = 2 * self.values * self.d / p
        self._cross = self.vectors.T @ training.cross

    def _learned(self, time: float) -> Tensor:
        """(1 - exp(-rate time)) / eigenvalue, which has a limit where the eigenvalue vanishes."""
        if not time >= 0:
            raise ValueError(f"time is {time}: training time cannot be negative")
        slope = 2 * self.d / len(self.values) * time
        x = self.rates * time
        small = x.abs() < 1e-12
        return slope * torch.where(small, 1.0, -torch.expm1(-x) / torch.where(small, 1.0, x))

    def weights(self, time: float) -> Tensor:
        """A(tau) / sqrt(p), (d, p); time may be infinite only where no eigenvalue is 0."""
        return (self.vectors @ (self._learned(time)[:, None] * self._cross)).T

    def losses(self, times: Tensor, law: Moments | None = None) -> Tensor:
        """L at each of `times` (T,) under `law`, None for the training set; (T,). No data is
        touched again."""
        law = law or self.training
        if law.cross.shape != self.training.cross.shape:
            raise ValueError(
                f"the law's moments are of shape {tuple(law.cross.shape)}, the training's "
                f"{tuple(self.training.cross.shape)}: take both with the same features"
            )
        quadratic = (self._cross @ self._cross.T) * (self.vectors.T @ law.gram @ self.vectors)
        linear = (self._cross * (self.vectors.T @ law.cross)).sum(1)
        learned = torch.stack([self._learned(float(t)) for t in times])
        return (
            law.power
            + ((learned @ quadratic) * learned).sum(1) / self.d
            - 2 * (learned @ linear) / self.d
        )


class Onset(NamedTuple):
    """Times read from two loss curves."""

    learned: float  # the test loss has made nine tenths of its way to its least value
    best: float  # the test loss is least
    # test loss less training loss reaches the threshold; infinite when it never does
    overfitted: float


def onset(times: Tensor, train: Tensor, test: Tensor, gap: float = 0.1) -> Onset:
    """When a model has learned and when it overfits, from its losses (T,) at ascending `times` (T,)
    > 0.

    gap: the threshold, in units of the loss. Crossings are interpolated in log time.
    """
    if (
        not len(times) == len(train) == len(test) >= 3
        or bool((times.diff() <= 0).any())
        or not float(times[0]) > 0
    ):
        raise ValueError(
            f"{len(times)} times, {len(train)} and {len(test)} losses: pass ascending times, a loss each"
        )
    if not gap > 0:
        raise ValueError(f"gap is {gap}: a threshold for test less training loss is positive")
    log, lowest = times.log(), int(test.argmin())

    def crossing(curve: Tensor, value: float) -> float:
        above = (curve >= value).nonzero()
        if len(above) == 0:
            return math.inf
        after = int(above[0])
        if after == 0:
            return float(times[0])
        a, b = float(curve[after - 1]), float(curve[after])
        return math.exp(
            float(log[after - 1]) + (value - a) / (b - a) * float(log[after] - log[after - 1])
        )

    return Onset(
        crossing(-test, -float(test[0] + 9 * test[lowest]) / 10),
        float(times[lowest]),
        crossing(test - train, gap),
    )


class Bulks(NamedTuple):
    """Where the spectrum of U lies: the atom s^2, the lower and upper edge of the bulk of the
    training set, and v^2."""

    atom: float
    low: float
    high: float
    v2: float


def bulks(n: int, p: int, sigma: float, variance: float = 1.0, gain: float = 1.0) -> Bulks:
    r"""Predicted spectrum of U = E phi phi^T over n training points, p features of phase 0, p > n
    >> d >> 1.

        [ s^2 + v^2 (1 - sqrt(p/n))^2,  s^2 + v^2 (1 + sqrt(p/n))^2 ],
        the n eigenvalues of the training set,

    (Bonnaire et al. 2025, theorem 3.2), p - n - d eigenvalues at s^2, and d of order p/d that a
    population has too. For sines the constants are elementary; with T = gain^2 variance, N = gain^2
    sigma^2,

        v^2 = e^-(T+N) (sinh T - T),   s^2 = e^-(T+N) (sinh(T + N) - sinh T - N):

    what the noise average of a feature has beyond its linear part, and what varies with the noise
    beyond its own.
    """
    positive_int("n", n), positive_int("p", p)
    if not (sigma > 0 and variance > 0 and gain > 0):
        raise ValueError(
            f"sigma={sigma}, variance={variance}, gain={gain}: all three must be positive"
        )
    t, noise = gain**2 * variance, gain**2 * sigma**2
    v2 = math.exp(-t - noise) * (math.sinh(t) - t)
    s2 = math.exp(-t - noise) * (math.sinh(t + noise) - math.sinh(t) - noise)
    low, high = (s2 + v2 * (1 + sign * math.sqrt(p / n)) ** 2 for sign in (-1, 1))
    return Bulks(s2, low, high, v2)


class FeatureDenoiser(Denoiser):
    """Random features trained by `Flow` for the same time at each level, from skip y: set `time`,
    then sample.

    points (N, d). At sigma the features see y - mean over its standard deviation, and learn what
    the preconditioning of Karras et al. (2022) leaves: skip = v / (v + sigma^2), v the mean
    variance of the points. p features of random phase. A level's eigendecomposition is kept, so
    that all times cost one.
    """

    def __init__(self, points: Tensor, p: int, gain: float = 1.0, time: float = 1.0, seed: int = 0):
        super().__init__()
        x = checked_points(points).flatten(1).double()
        self.event_shape, self.time = tuple(points.shape[1:]), time
        self.keep(centre=x.mean(0), points=x - x.mean(0))
        if not self.variance > 0:
            raise ValueError("all points are equal: pass a training set with at least two")
        self.unit = SineFeatures.random(p, x.shape[1], gain, phases=True, seed=seed)

    centre: Tensor
    points: Tensor

    @property
    def variance(self) -> float:
        return self.kept("variance", lambda: float(self.points.square().mean()))

    def features(self, sigma: float) -> SineFeatures:
        """The features of y - mean at that level."""
        return SineFeatures(
            self.unit.weights / math.sqrt(self.variance + sigma**2), self.unit.phases
        )

    def skip(self, sigma: float) -> float:
        return self.variance / (self.variance + sigma**2)

    def moments(self, x: Tensor, sigma: float) -> Moments:
        """Of clean points x (N, *event): for losses on images that were not trained on."""
        return moments(
            self.features(sigma), x.flatten(1) - self.centre, sigma, skip=self.skip(sigma)
        )

    def flow(self, sigma: float) -> Flow:
        def trained() -> Flow:
            features, skip = self.features(sigma), self.skip(sigma)
            return Flow(moments(features, self.points, sigma, skip=skip))

        return self.kept(sigma, trained)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        return per_level(y, sigma, self._estimate)

    def _estimate(self, y: Tensor, sigma: float) -> Tensor:
        wide, skip = widened(y.flatten(1)), self.skip(sigma)
        centre = self.centre.to(wide)
        z = wide - centre
        f = self.features(sigma)(z) @ self.flow(sigma).weights(self.time).to(z).T
        return (centre + skip * z + sigma * math.sqrt(skip) * f).view_as(y).to(y)
