"""Who votes for a pixel: the patches behind an estimate of a local machine, and a figure that
answers to clicks."""

import base64
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from ..checks import positive_int
from ..kernels.local import checked_window
from ..plots import GENERATED
from .panel import Panel, as_png

SHOWN = 8  # voters of the picture


def votes(
    points: Tensor,
    y: Tensor,
    sigma: float,
    pixel: tuple[int, int],
    patch: int,
    machine: str = "local",
) -> Tensor:
    r"""The weight of every patch in the estimate of one pixel q, summing to 1.

        w_j = softmax_j( -||y_window(q) - P_j||^2 / (2 sigma^2) ),   x_hat(q) = sum_j w_j
        centre(P_j).

    points (N, H, W), y (H, W); `machine` "local" or "equivariant" with padding "zeros", and `patch`
    as in `helpers.kernels.local.local_mean`. Also for "local": a side from 2 max(H, W) - 1 on,
    every window the whole image.

    Result float64 (N, H, W): the weight of the patch of image i with centre (r, c), zero where
    there is no such patch. Raises ValueError for other input.
    """
    N, H, W = points.shape if points.ndim == 3 else (0, 0, 0)
    if N == 0 or y.shape != (H, W):
        raise ValueError(
            f"points {tuple(points.shape)}, y {tuple(y.shape)}: pass images (N, H, W) and one image (H, W)"
        )
    if machine not in ("local", "equivariant"):
        raise ValueError(f"machine is {machine!r}: choose one of local, equivariant")
    if not (0 <= pixel[0] < H and 0 <= pixel[1] < W):
        raise ValueError(f"pixel is {pixel}: choose one inside the image of {H} x {W}")
    if machine == "equivariant" or positive_int("patch", patch) < 2 * max(H, W) - 1:
        checked_window(patch, machine, "zeros", (H, W))
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma is {sigma}: the noise level must be positive and finite")
    reach, (r, c) = patch // 2, pixel
    up, left, down, right = (
        min(reach, r),
        min(reach, c),
        min(reach, H - 1 - r),
        min(reach, W - 1 - c),
    )
    window = y[r - up : r + down + 1, c - left : c + right + 1].double()
    centres = [pixel]
    if machine == "equivariant":
        centres = [(i, j) for i in range(reach, H - reach) for j in range(reach, W - reach)]
    squares = torch.full((N, H, W), torch.inf, dtype=torch.float64, device=points.device)
    for i, j in centres:
        there = points[:, i - up : i + down + 1, j - left : j + right + 1].double()
        squares[:, i, j] = (there - window).square().sum((1, 2))
    return torch.softmax(-squares.flatten() / (2 * sigma**2), 0).view(N, H, W)


class Voters(Panel):
    """Click a pixel of a noisy image: which training patches vote for it, and with which weight?

    static/voters.js computes every answer from the training images that the figure carries, on
    the page and in Jupyter and Colab; without JavaScript the picture of the first state stands.

    points (N, H, W) training and clean (K, H, W) test images, multiples of 1/255; noise (H, W) of
    level 1, float32.
    sides: odd window sides, a last one of at least 2 max(H, W) - 1 for the whole image. start:
    picture, row, column, sigma, side, machine, where not the first of every choice in the middle.
    caption, alt: as for every figure. Raises ValueError for a start that is not among the choices.
    """

    element, script = "patch-voters", "voters"

    def __init__(
        self,
        points: Tensor,
        clean: Tensor,
        noise: Tensor,
        sigmas: Sequence[float],
        sides: Sequence[int],
        caption: str,
        alt: str,
        **start: Any,
    ):
        N, H, W = points.shape
        if clean.shape[1:] != (H, W) or noise.shape != (H, W):
            raise ValueError(
                f"clean {tuple(clean.shape)}, noise {tuple(noise.shape)}: the training images are {H} x {W}"
            )
        first = {
            "picture": 0,
            "row": H // 2,
            "column": W // 2,
            "sigma": sigmas[0],
            "side": sides[0],
            "machine": "local",
        }
        choices = {"picture": range(len(clean)), "row": range(H), "column": range(W), "sigma": sigmas, "side": sides,
                   "machine": ("local", "equivariant")}  # fmt: skip
        for key, value in start.items():
            if key not in first or value not in choices[key]:
                raise ValueError(
                    f"start has {key} = {value!r}: choose {key} from {choices.get(key, tuple(first))}"
                )
        self.points, self.clean, self.noise = points.cpu(), clean.cpu(), noise.float().cpu()
        self.caption, self.alt = caption, alt
        self.start = first | start
        self.spec = {
            "height": H,
            "width": W,
            "sigmas": list(sigmas),
            "sides": list(sides),
            "start": self.start,
        }

    def still(self) -> bytes:
        """The first state as PNG: noisy image, estimate of the pixel's window, strongest voters
        with their weights."""
        s, pixel = self.start, (self.start["row"], self.start["column"])
        y = self.clean[s["picture"]] + s["sigma"] * self.noise
        w = votes(self.points, y, s["sigma"], pixel, s["side"], s["machine"])
        fig, axes = plt.subplots(1, SHOWN + 1, figsize=(9.6, 1.5))
        self._picture(axes[0], 0.5 + (y - 0.5) / (1 + 4 * s["sigma"] ** 2) ** 0.5, pixel)
        axes[0].set_title(f"σ = {s['sigma']:g}", fontsize=9)
        strongest, where = w.flatten().topk(SHOWN)
        for ax, weight, index in zip(axes[1:], strongest.tolist(), where.tolist(), strict=True):
            image, place = divmod(index, y.numel())
            self._picture(ax, self.points[image], divmod(place, y.shape[1]))
            ax.set_title(f"{100 * weight:.1f} %", fontsize=9)
        return as_png(fig)

    def _picture(self, ax: Axes, image: Tensor, pixel: tuple[int, int]) -> None:
        ax.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
        reach, (H, W) = self.start["side"] // 2, image.shape
        (top, bottom), (left, right) = (
            (max(0, p - reach), min(n - 1, p + reach)) for p, n in zip(pixel, (H, W), strict=True)
        )
        ax.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5),
                right - left + 1,
                bottom - top + 1,
                fill=False,
                ec=GENERATED,
                lw=2,
            )
        )
        ax.set_axis_off()

    def carried(self) -> dict[str, Any]:
        """The choices and, as base64, the images and the noise: all that voters.js needs."""
        as_bytes = {k: (255 * t).round().to(torch.uint8).numpy().tobytes() for k, t in
                    (("images", self.points), ("clean", self.clean))}  # fmt: skip
        as_bytes["noise"] = self.noise.numpy().tobytes()
        return self.spec | {k: base64.b64encode(v).decode() for k, v in as_bytes.items()}
