"""A panel that takes a denoiser's answer apart: its leading eigenvectors, each kept whole, shrunk,
or removed."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from ..checks import positive_int
from ..denoisers.base import Denoiser
from ..jacobian import Eigen, Jacobian, eigen
from ..plots import signed
from .panel import Panel, as_png, as_text

UNIT = 4096  # pictures travel as 16-bit multiples of 1 / UNIT
SHOWN = 5  # eigenvectors of the picture that stands where there is no JavaScript


def reshaped(x_hat: Tensor, y: Tensor, found: Eigen, values: Tensor) -> Tensor:
    r"""The answer after eigenvalue k of the symmetric part became values[k], everything else left
    alone.

        x_hat' = x_hat + sum_k (values[k] - lambda_k) <y, e_k> e_k,

    that is J' y for J' = J + sum_k (values[k] - lambda_k) e_k e_k^T where x_hat = J y. x_hat, y
    (*event), values (k,).
    """
    rows = found.vectors.flatten(1)
    step = (values - found.values) * (rows @ y.flatten())
    return x_hat + (step @ rows).view_as(x_hat)


class Shrinkage(Panel):
    """Walk through the leading eigenvectors of a denoiser at noisy images, and change what it does
    along each.

    Everything is computed here; static/eigen.js draws it, on the page and in Jupyter and Colab.
    Its numbers are exact: the error after a change follows from coefficients that travel with it,
    as the vectors are orthonormal. Its pictures have 8 bits. Without JavaScript the picture of the
    first state stands.

    denoiser: blind or not, homogeneous where x_hat = J y is to hold. clean (K, H, W); noise (H, W)
    of level 1; `count` eigenvectors from a Krylov space of dimension `basis` (see
    `helpers.jacobian.eigen`). `found[picture][level]` keeps the eigenpairs. start: picture, level,
    k, from 0. caption, alt: as for every figure. Raises ValueError for a start that is not among
    the choices, or shapes that do not fit.
    """

    element, script = "eigen-shrinkage", "eigen"

    def __init__(
        self,
        denoiser: Denoiser,
        clean: Tensor,
        noise: Tensor,
        sigmas: Sequence[float],
        caption: str,
        alt: str,
        count: int = 24,
        basis: int | None = None,
        **start: int,
    ):
        if clean.ndim != 3 or noise.shape != clean.shape[1:]:
            raise ValueError(
                f"clean {tuple(clean.shape)}, noise {tuple(noise.shape)}: pass (K, H, W) and (H, W)"
            )
        first = {"picture": 0, "level": 0, "k": 0}
        limits = {"picture": len(clean), "level": len(sigmas), "k": positive_int("count", count)}
        for key, value in start.items():
            if key not in first or value not in range(limits[key]):
                raise ValueError(
                    f"start has {key} = {value!r}: choose picture, level or k below {limits}"
                )
        self.sigmas, self.caption, self.alt = list(sigmas), caption, alt
        self.start, self.count = first | start, count
        y = torch.stack([torch.stack([x + s * noise for s in sigmas]) for x in clean])
        with torch.no_grad():
            answers = [
                [denoiser(y[i, j][None], s)[0] for j, s in enumerate(sigmas)]
                for i in range(len(clean))
            ]
        x_hat = torch.stack([torch.stack(row) for row in answers])
        self.found = [
            [
                eigen(Jacobian(denoiser, y[i, j][None], s), count, basis)
                for j, s in enumerate(sigmas)
            ]
            for i in range(len(clean))
        ]
        self.found = [[Eigen(*(t.cpu() for t in pairs)) for pairs in row] for row in self.found]
        self.clean, self.noise, self.y, self.x_hat = (t.cpu() for t in (clean, noise, y, x_hat))

    def carried(self) -> dict[str, Any]:
        """All that eigen.js needs: choices, numbers of every state, and pictures as base64."""
        states = [
            [self._state(i, j) for j in range(len(self.sigmas))] for i in range(len(self.clean))
        ]
        pictures = {"clean": self.clean, "noise": self.noise, "x_hat": self.x_hat}
        for name, picture in pictures.items():
            if float(picture.abs().max()) * UNIT > 32767:
                raise ValueError(
                    f"{name} holds {float(picture.abs().max()):.1f}: pictures up to {32767 // UNIT} fit"
                )
        (H, W), integers = (
            self.noise.shape,
            {k: (UNIT * v).round().to(torch.int16) for k, v in pictures.items()},
        )
        return {
            "height": H, "width": W, "sigmas": self.sigmas, "count": self.count, "start": self.start, "unit": UNIT,
            "states": states, **{k: as_text(v) for k, v in integers.items()},
        }  # fmt: skip

    def _state(self, i: int, j: int) -> dict[str, Any]:
        found, x_hat, x = self.found[i][j], self.x_hat[i, j].double(), self.clean[i].double()
        rows = found.vectors.flatten(1).double()
        along = {"noisy": self.y[i, j].double(), "clean": x, "answer": x_hat}
        peak = found.vectors.flatten(1).abs().amax(1)
        small = (127 * found.vectors / peak.view(-1, 1, 1)).round().to(torch.int8)
        return {
            "values": found.values.double().tolist(),
            **{name: (rows @ image.flatten()).tolist() for name, image in along.items()},
            "error": float((x_hat - x).square().sum()),
            "peaks": peak.tolist(),
            "vectors": as_text(small),
        }

    def still(self) -> bytes:
        """The first state as PNG: clean, noisy, answer, and the first eigenvectors with their
        eigenvalues."""
        i, j = self.start["picture"], self.start["level"]
        found, sigma = self.found[i][j], self.sigmas[j]
        noisy = 0.5 + (self.y[i, j] - 0.5) / (1 + 4 * sigma**2) ** 0.5
        shown = [("clean", self.clean[i]), (f"σ = {sigma:g}", noisy), ("answer", self.x_hat[i, j])]
        shown += [
            (f"λ = {v:.2f}", e)
            for v, e in zip(found.values.tolist(), signed(found.vectors), strict=True)
        ]
        shown = shown[: 3 + SHOWN]
        fig, axes = plt.subplots(1, len(shown), figsize=(9.6, 1.5))
        for ax, (title, image) in zip(axes, shown, strict=True):
            ax.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
            ax.set_title(title, fontsize=9)
            ax.set_axis_off()
        return as_png(fig)
