"""The Bayes denoiser of a finite training set: the ideal network, and the one that copies."""

import torch
from torch import Tensor

from ..checks import checked_points, checked_sigma, exporting, positive_int, transformed, widened
from ..kernels.posterior import Summary, plain_mean, posterior_mean, summarise
from .base import Denoiser


class PosteriorMean(Denoiser):
    r"""Posterior mean of the empirical law of a training set (proposition P0), optionally smoothed.

        D(y, sigma) = sum_i w_i x_i,   w = softmax_i( -||y - x_i||^2 / (2 sigma^2) ).

    `smoothing` s > 0 averages the score over M fixed shifts of the input, as in Scarvelis, Borde
    and Solomon (*Closed-form diffusion models*, TMLR 2025). They shift z = t y, t = 1/(1 + sigma),
    by s u_m with u_m ~ N(0, I); in our coordinates, and with the u_m centred, that is

        D_s(y, sigma) = mean_m D( y + s (1 + sigma) u_m, sigma ),

    so that the flow ends at barycentres of M-tuples of training points.

    points (N, *event), intensities or coordinates in the units of y. Costs O(batch N d) time and
    O(batch d) memory; precision and paths are those of `helpers.kernels.posterior`.
    Proved: `prop-p0`.

    >>> copies = PosteriorMean(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    >>> copies(torch.tensor([[0.9, 0.7]]), 0.1)
    tensor([[1., 1.]])
    """

    def __init__(self, points: Tensor, smoothing: float = 0.0, shifts: int = 4, seed: int = 0):
        super().__init__()
        points = checked_points(points)
        if not smoothing >= 0:
            raise ValueError(
                f"smoothing is {smoothing}: it is a length and cannot be negative; 0 switches it off"
            )
        self.event_shape = tuple(points.shape[1:])
        self.smoothing = smoothing
        # Distances are taken after centring: near-equal squares of large offsets would cancel.
        centre = widened(points).mean(0).to(points)
        self.register_buffer("centre", centre)
        self.register_buffer("points", (points - centre).flatten(1))
        g = torch.Generator().manual_seed(seed)
        u = torch.randn(positive_int("shifts", shifts), *self.event_shape, generator=g)
        self.register_buffer("shifts", (u - u.mean(0)).to(points.device))

    centre: Tensor
    points: Tensor
    shifts: Tensor

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        y = y - self.centre.to(y)
        if self.smoothing == 0:
            return self._mean(y, sigma) + self.centre.to(y)
        step = self.smoothing * (1 + sigma)
        x_hat = torch.stack([self._mean(y + step * u, sigma) for u in self.shifts.to(y)]).mean(0)
        return x_hat + self.centre.to(y)

    def _mean(self, y: Tensor, sigma: Tensor) -> Tensor:
        flat, sigma = y.flatten(1), sigma.flatten() if sigma.ndim else sigma.expand(y.shape[0])
        if exporting() or transformed(self.points, flat, sigma):  # one expression, any batch size
            return plain_mean(self.points, flat, sigma).view_as(y)
        return posterior_mean(self.points, flat, sigma, summary=self._summary()).mean.view_as(y)

    def _summary(self) -> Summary:
        zero = torch.zeros_like(self.points[0])
        return self.kept("summary", lambda: summarise(self.points, zero))

    def weights(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior probability of each training point given y at noise sigma, shape (batch, N)."""
        checked_sigma(y, sigma, self.event_shape)
        flat = (y - self.centre.to(y)).flatten(1)
        found = posterior_mean(self.points, flat, sigma, len(self.points), self._summary())
        return torch.zeros_like(found.weights).scatter(1, found.indices, found.weights).to(y)
