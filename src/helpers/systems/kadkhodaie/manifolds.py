"""Image classes with few degrees of freedom: their tangent spaces, and the nearest image of the
class."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...checks import positive_int
from .eigenbasis import principal_cosines

Model = Callable[[Tensor], Tensor]  # parameters (m,) -> image (*event), differentiable


def tangent_space(model: Model, parameters: Tensor) -> Tensor:
    """Orthonormal basis, float64 (m, *event), of the span of the m derivatives of the image by its
    parameters (m,).

    Raises ValueError where they are linearly dependent: the class has fewer degrees of freedom
    there.
    """
    columns = torch.func.jacfwd(model)(parameters.double())
    flat = columns.flatten(0, -2)
    if int(torch.linalg.matrix_rank(flat)) < flat.shape[1]:
        raise ValueError(
            f"at {parameters.tolist()} the {flat.shape[1]} derivatives are dependent: choose another image"
        )
    return torch.linalg.qr(flat).Q.T.reshape(-1, *columns.shape[:-1])


def angles(a: Tensor, b: Tensor) -> Tensor:
    """Principal angles in degrees between the spans of a (k, *event) and b (m, *event), ascending,
    (min(k, m),)."""
    cosines = principal_cosines(a, b)
    return torch.rad2deg(cosines.clamp(max=1.0).acos())  # rounding may carry a cosine past 1


def nearest_image(model: Model, parameters: Tensor, y: Tensor, steps: int = 8) -> Tensor:
    r"""The image of the class nearest to each y (batch, *event), found by Gauss-Newton from
    `parameters` (batch, m).

        theta <- theta + argmin_t || y - x(theta) - x'(theta) t ||^2

    For small noise on the image with these parameters this is what the posterior mean tends to,
    with mean squared error m sigma^2 (as long as the class is flat over a few sigma). float64; NaN
    where the steps diverge.
    """
    theta, rows = parameters.double(), y.double().flatten(1)
    for _ in range(positive_int("steps", steps)):
        slopes = torch.func.vmap(torch.func.jacfwd(model))(theta).flatten(1, -2)
        left = rows - torch.func.vmap(model)(theta).flatten(1)
        # which no GPU has
        solved = torch.linalg.lstsq(slopes.cpu(), left[..., None].cpu(), driver="gelsd")
        step = solved.solution[..., 0].to(theta)
        theta = theta + torch.where(step.isfinite(), step, math.nan)
    return torch.func.vmap(model)(theta).view(y.shape)
