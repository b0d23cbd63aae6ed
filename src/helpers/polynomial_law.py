"""What the flow of a polynomial denoiser generates: its law to first order, its support, and who
escapes."""

import math

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermeval
from scipy.integrate import LSODA
from scipy.interpolate import CubicSpline
from torch import Tensor

from .checks import checked_sigma, exact, ordered, positive, positive_int
from .denoisers import GaussianMixture, Polynomial
from .denoisers.base import Denoiser
from .sampling import DIVERGED, heun, last, log_linear

LEVELS = 400  # of a spline through the fits: half the levels change the seventh digit
REACH = 8  # standard deviations of the start: in the plane 1e-14 of it lies farther out


def first_order(target: GaussianMixture, degree: int, y: Tensor) -> Tensor:
    r"""The density of what degree k generates, to first order in non-Gaussianity, (batch,).

    With gamma the Gaussian of the target's mean and covariance and h_a the orthonormal Hermite
    polynomials along its axes,

        q(y) = gamma(y) sum over |a| <= k + 1 of E[h_a(x)] h_a(y):

    the Gram-Charlier series of the target, cut off at order k + 1. It has mass 1 and may be
    negative. y is (batch, d). Raises ValueError when the target is flat. Proved:
    `prop-first-order`.

    >>> skewed = GaussianMixture([[0.0], [1.5]], std=torch.tensor([1.0, 0.5]), weights=[0.8, 0.2])
    >>> y = torch.tensor([[0.3]])
    >>> [round(float(first_order(skewed, k, y)), 2) for k in (1, 2, 3, 9)]
    [0.36, 0.36, 0.34, 0.31]
    """
    checked_sigma(y, 1.0, target.event_shape)  # for the shape of y
    top, mean = positive_int("degree", degree) + 1, exact(target.mean)
    h, order = Polynomial(target, top).features, top // 2 + 1  # nodes exact to 2 order - 1 >= top
    variances, axes = torch.linalg.eigh(exact(target.covariance))
    if not float(variances[0]) > 1e-12 * float(variances[-1]):
        raise ValueError(
            f"the smallest variance of the target is {float(variances[0]):.3g}: a flat target has "
            "no Gaussian density to compare with, reduce its dimension"
        )
    nodes, weights, _ = target.nodes(0.0, order)
    z = (y.to(mean) - mean) @ axes / variances.sqrt()
    kept = weights @ h((nodes - mean) @ axes / variances.sqrt())
    gamma = GaussianMixture(mean[None], covariances=exact(target.covariance)[None])
    return (gamma.log_prob(y.to(mean)).exp() * (h(z) @ kept)).to(y)


def cumulant(target: GaussianMixture, order: int, directions: Tensor | None = None) -> Tensor:
    """kappa_n of u . x for each direction u of (m, d), (m,); the default is u = 1, on the line.

    kappa_n = m_n - sum over 0 < j < n of binomial(n - 1, j - 1) kappa_j m_(n - j), with the moments
    m of u . x about its mean. At large noise the leading coefficient of the best polynomial of
    degree k is kappa_(k + 1) / (k! sigma^(2k)). Proved: `prop-cumulant`.

    >>> [round(float(cumulant(GaussianMixture([[-1.0], [1.0]]), n))) for n in (2, 3, 4, 6, 8)]
    [1, 0, -2, 16, -272]
    """
    if directions is None and len(target.mean) > 1:
        raise ValueError(
            f"the target has {len(target.mean)} dimensions: directions are missing, pass "
            f"(m, {len(target.mean)}), one a row"
        )
    u = exact(target.means.new_ones(1, 1) if directions is None else directions)
    if u.ndim != 2 or u.shape[1] != len(target.mean):
        raise ValueError(
            f"directions have shape {tuple(u.shape)}: pass (m, {len(target.mean)}), one a row"
        )
    x, weights, _ = target.nodes(0.0, positive_int("order", order) // 2 + 1)
    x, weights, mean = x.to(u), weights.to(u), target.mean.to(u)
    along = (x - mean) @ u.T
    m = [weights @ along**j for j in range(order + 1)]
    kappa = [torch.zeros_like(m[0])]
    for n in range(1, order + 1):
        lower = (math.comb(n - 1, j - 1) * kappa[j] * m[n - j] for j in range(1, n))
        kappa.append(m[n] - sum(lower))
    return kappa[order] + (u @ mean if order == 1 else 0)


def carried(denoiser: Polynomial, y: Tensor, start: float, end: float) -> Tensor:
    """Where the probability flow takes points of the line, (batch,), from noise level start to end.

    Up or down, to seven digits: fits at LEVELS levels, between them a cubic spline, and a solver
    that takes stiff equations (LSODA). Infinity, which is DIVERGED standard deviations of the noisy
    target, is a point like any other: what reaches it waits there and comes back when the denoiser
    points inwards, as a bound on all finite paths must. The result is infinite, with its sign,
    where a point ends there. Raises ValueError off the line.
    """
    if denoiser.event_shape != (1,) or denoiser.gradient:
        raise ValueError(
            f"the denoiser is for points {denoiser.event_shape}, gradient={denoiser.gradient}: take "
            "a Polynomial on the line without gradient, it is the same there; paths keep their order "
            "on the line only"
        )
    positive("start", start, "pass a noise level, a positive number")
    if positive("end", end, "pass a noise level, a positive number") == start:
        raise ValueError(f"start and end are {start}: take two different noise levels")
    mean, variance = float(denoiser.centre), float(denoiser.variance)
    u = np.linspace(math.log(start), math.log(end), LEVELS)
    root = np.sqrt([math.factorial(n) for n in range(denoiser.degree + 1)])
    fits = [denoiser.coefficients(math.exp(v))[:, 0].cpu().numpy() for v in u]
    s = np.sqrt(variance + np.exp(2 * u))  # of the noisy target: z = (y - mean) / s
    change = -np.stack(fits) / root / s[:, None]  # dz/du by Hermite polynomials He_n(z)
    change[:, 0] += mean / s
    change[:, 1] += variance / s**2
    up = 1 if end > start else -1
    spline = CubicSpline(u[::up], change[::up])

    def slope(v: float, z: np.ndarray) -> np.ndarray:
        return hermeval(z, spline(v))

    def end_of(z: float) -> float:
        later = u[0]
        while True:
            if abs(z) >= DIVERGED:
                z = math.copysign(DIVERGED, z)
                inwards = up * z * hermeval(z, change.T) < 0
                here = np.flatnonzero((inwards & (up * (u - later) >= 0))[:-1])  # a step is left
                if not len(here):
                    return z * math.inf
                later = u[here[0]]
            path = LSODA(slope, later, [z], u[-1], rtol=1e-9, atol=1e-12)
            while path.status == "running" and abs(path.y[0]) < 2 * DIVERGED:
                path.step()
            if path.status == "failed":
                raise ValueError(
                    f"the path from {z:.3g} at level {math.exp(path.t):.3g} cannot be followed: lower "
                    "the degree, or raise the smallest level"
                )
            later, z = path.t, float(path.y[0])
            if path.status == "finished" and abs(z) < 0.99 * DIVERGED:
                return mean + s[-1] * z
            z *= math.inf

    return y.new_tensor([end_of((point - mean) / s[0]) for point in y.tolist()])


def support(
    denoiser: Polynomial, sigma_min: float = 0.02, sigma_max: float = 80.0
) -> tuple[float, float]:
    """The interval outside of which the flow's density at sigma_min is 0, on the line.

    On the line paths keep their order, so the interval ends where the flow takes the ends of the
    line. `density.generated_log_density` is -inf outside. Proved: `prop-support`.

    >>> target = GaussianMixture([[-1.0], [1.0]], 0.2)
    >>> [round(edge, 3) for edge in support(Polynomial(target, 3), 0.05)]
    [-1.412, 1.412]
    """
    ends = torch.tensor([-math.inf, math.inf], dtype=torch.float64)
    ordered(sigma_min, sigma_max)
    low, high = carried(denoiser, ends, sigma_max, sigma_min).tolist()
    return low, high


def escaping(
    denoiser: Polynomial, far: float, sigma_min: float = 0.02, sigma_max: float = 80.0
) -> tuple[float, float]:
    """The probabilities that a start from N(0, sigma_max^2) ends below -far, and above far.

    The flow is followed from -far and far upwards: what starts outside of where they come from ends
    outside of them. Proved: `prop-escape`.
    """
    ordered(sigma_min, sigma_max)
    far = positive("far", far, "pass a distance, a positive number")
    ends = carried(denoiser, torch.tensor([-far, far]).double(), sigma_min, sigma_max) / sigma_max
    low, high = torch.special.ndtr(ends * torch.tensor([1.0, -1.0]).to(ends)).tolist()
    return low, high


def escaping_along(
    denoiser: Denoiser,
    directions: Tensor,
    far: float,
    sigma_min: float = 0.02,
    sigma_max: float = 80.0,
    steps: int = 120,
) -> Tensor:
    """The probability that a start in each of the directions (m, d) has a coordinate beyond far in
    the end, (m,).

    A start is sigma_max r u, with r^2 chi-squared of d degrees. Radii up to REACH are tried along
    each u, every border between those that stay and those that leave is found by bisection, and the
    law of r is summed between borders. The mean over evenly spread directions is the share lost;
    one border r in the plane means exp(-r^2 / 2). The flow is Heun's rule on log-linear levels: at
    a high degree its steps throw a few starts across that the flow itself brings back, a share of
    about 1e-5 at degree 9, less with more steps. Proved: `prop-escape-plane`.

    >>> target = GaussianMixture([[-0.5, 0.0], [2.0, 0.0]], weights=[0.8, 0.2])
    >>> right_and_left = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> [round(p, 2) for p in escaping_along(Polynomial(target, 2), right_and_left, 10.0).tolist()]
    [0.19, 0.0]
    """
    ordered(sigma_min, sigma_max)
    far, u = positive("far", far, "pass a distance, a positive number"), exact(directions)
    d = math.prod(denoiser.event_shape)
    length = u.norm(dim=-1, keepdim=True)
    if u.shape != (len(u), d) or not bool((length > 0).all() and length.isfinite().all()):
        raise ValueError(
            f"directions have shape {tuple(u.shape)}: pass (m, {d}), one a row, none of length 0"
        )
    u, levels = u / length, log_linear(steps, sigma_min, sigma_max)[:-1]

    def leaves(r: Tensor, u: Tensor) -> Tensor:
        ends = last(heun(denoiser, (sigma_max * r[:, None] * u).contiguous(), levels))
        return ~(ends.abs() <= far).all(1)  # NaN has left the range of numbers

    reach = REACH + math.ceil(
        math.sqrt(max(d - 2, 0))
    )  # the length of a start grows as a root of d
    r = torch.linspace(0, reach, 4 * reach + 1).to(u)
    lost = leaves(r.repeat_interleave(len(u)), u.repeat(len(r), 1)).view(len(r), len(u))
    i, j = (lost[1:] != lost[:-1]).nonzero(as_tuple=True)
    low, high, outwards = r[i], r[i + 1], lost[i + 1, j]
    for _ in range(10 if len(i) else 0):
        middle = (low + high) / 2
        beyond = leaves(middle, u[j]) == outwards
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    above = torch.special.gammaincc(u.new_full((), d / 2), ((low + high) / 2).square() / 2)
    return lost[0].to(u).index_add(0, j, torch.where(outwards, above, -above))
