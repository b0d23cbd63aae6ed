"""The Bayes denoiser of a finite training set: the ideal network, and the one that copies."""

import torch
from torch import Tensor

from .base import Denoiser, checked_points, checked_sigma, exporting, positive_int


class PosteriorMean(Denoiser):
    r"""Posterior mean of the empirical law of a training set (proposition P0), optionally smoothed.

        D(y, sigma) = sum_i w_i x_i,   w = softmax_i( -||y - x_i||^2 / (2 sigma^2) ).

    `smoothing` s > 0 averages the score over M fixed shifts of the input, as in Scarvelis, Borde and Solomon
    (*Closed-form diffusion models*, TMLR 2025). They shift z = t y, t = 1/(1 + sigma), by s u_m with u_m ~ N(0, I); in
    our coordinates, and with the u_m centred, that is

        D_s(y, sigma) = mean_m D( y + s (1 + sigma) u_m, sigma ),

    so that the flow ends at barycentres of M-tuples of training points.

    points (N, *event), intensities or coordinates in the units of y. Costs O(batch N d); rows go in chunks of `chunk`.
    """

    def __init__(self, points: Tensor, smoothing: float = 0.0, shifts: int = 4, seed: int = 0, chunk: int = 1024):
        super().__init__()
        points = checked_points(points)
        if not smoothing >= 0:
            raise ValueError(f"smoothing is {smoothing}: it is a length and cannot be negative; 0 switches it off")
        self.event_shape = tuple(points.shape[1:])
        self.smoothing, self.chunk = smoothing, positive_int("chunk", chunk)
        # Distances are taken after centring: near-equal squares of large offsets would cancel.
        centre = points.double().mean(0).to(points)
        self.register_buffer("centre", centre)
        self.register_buffer("points", (points - centre).flatten(1))
        u = torch.randn(
            positive_int("shifts", shifts), *self.event_shape, generator=torch.Generator().manual_seed(seed)
        )
        self.register_buffer("shifts", u - u.mean(0))

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
        x, flat = self.points.to(y), y.flatten(1)
        sigma = sigma.flatten() if sigma.ndim else sigma.expand(y.shape[0])
        if exporting():  # a graph of any batch size cannot count its chunks
            return (self._weights(flat, sigma, x) @ x).view_as(y)
        rows = [
            self._weights(q, s, x) @ x for q, s in zip(flat.split(self.chunk), sigma.split(self.chunk), strict=True)
        ]
        return torch.cat(rows).view_as(y) if rows else y

    @staticmethod
    def _weights(y: Tensor, sigma: Tensor, x: Tensor) -> Tensor:
        if x.shape[1] <= 3:  # in the plane differences are cheap, and keep the digits that a small sigma needs
            negative = -0.5 * sum((y[:, i, None] - x[:, i]).square() for i in range(x.shape[1]))
        else:  # ||y - x||^2 less ||y||^2, which the softmax ignores: one product instead of (batch, N, d) numbers
            negative = y @ x.T - 0.5 * (x**2).sum(1)
        return torch.softmax(negative / sigma[:, None] ** 2, dim=1)

    def weights(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior probability of each training point given y at noise sigma, shape (batch, N)."""
        level = checked_sigma(y, sigma, self.event_shape).flatten().expand(len(y))
        flat = (y - self.centre.to(y)).flatten(1)
        return self._weights(flat, level, self.points.to(flat))
