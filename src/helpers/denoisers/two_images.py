"""The local machine of two images in closed form: what the majority of a window says."""

import torch
from torch import Tensor

from ..checks import checked_points, positive_int
from .base import Denoiser


class TwoImages(Denoiser):
    r"""LS of Kamb & Ganguli (ICML 2025) for a training set of two images a and b: one logistic
    function per pixel.

        x_hat(q) = a(q) + (b(q) - a(q)) logistic( v(q) / sigma^2 ),
        v(q) = sum_{p in window(q)} (b(p) - a(p)) (y(p) - (a(p) + b(p)) / 2).

    Equal to `LocalMean(points, patch)`, whose softmax over two patches this is, but a few products
    of matrices, so that it exports as a graph and runs in the reader's browser. For black a = 0 and
    white b = 1 the logistic function takes the sum of y - 1/2 over the window: as sigma goes to 0,
    the majority vote.

    points (2, H, W). patch: odd, from 1 (every pixel by itself); windows are cut at the border, and
    from 2 max(H, W) - 1 on every window is the whole image: the posterior mean. Costs H W (H + W)
    products for an image. Raises ValueError for other input. Proved: `thm-mosaic`.
    """

    def __init__(self, points: Tensor, patch: int):
        super().__init__()
        points = checked_points(points)
        if points.ndim != 3 or len(points) != 2:
            raise ValueError(
                f"points has shape {tuple(points.shape)}: pass two gray images (2, H, W)"
            )
        if positive_int("patch", patch) % 2 == 0:
            raise ValueError(f"patch is {patch}: a window around a pixel has an odd side")
        self.event_shape = tuple(points.shape[1:])
        self.register_buffer("first", points[0])
        self.register_buffer("step", points[1] - points[0])
        for name, size in zip(("rows", "columns"), self.event_shape, strict=True):
            at = torch.arange(size)
            # 1 where q's window has p
            self.register_buffer(name, ((at[:, None] - at).abs() <= patch // 2).to(points))

    first: Tensor
    step: Tensor
    rows: Tensor
    columns: Tensor

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        first, step, rows, columns = (
            t.to(y) for t in (self.first, self.step, self.rows, self.columns)
        )
        votes = rows @ (step * (y - first - step / 2)) @ columns
        return first + step * torch.sigmoid(votes / sigma**2)
