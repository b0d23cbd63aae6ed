"""What the eigenvectors of a denoiser's Jacobian are like: shared? smooth? along contours? And
errors by SURE."""

import torch
from torch import Tensor

from ...checks import accumulate_dtype, checked_points, checked_sigma, positive_int, widened
from ...denoisers.base import Denoiser
from ...jacobian import Jacobian
from ...realism import radii

TILTED = 1e-3  # how far from orthonormal rows may be


# Two bases ----------------------------------------------------------------------------------------


def principal_cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosines of the principal angles between the spans of a (k, *event) and b (m, *event), (min(k,
    m),), descending.

    The singular values of A B^T, rows orthonormal (Bjorck & Golub 1973): 1 for each direction that
    both share. Raises ValueError for rows that are not orthonormal, or of two spaces.
    """
    a, b = _rows(a, "a"), _rows(b, "b")
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"a has dimension {a.shape[1]}, b has {b.shape[1]}: the vectors must live in one space"
        )
    return torch.linalg.svdvals(a @ b.T)


def overlap(a: Tensor, b: Tensor) -> float:
    r"""How much of the span of a (k, *event) lies in that of b (m, *event), rows orthonormal, k <=
    m: in [0, 1].

        ||A B^T||_F^2 / k,   the mean squared principal cosine.

    For a random space in dimension d its mean is m / d: compare with that. Proved: `lem-chance`.
    """
    if len(a) > len(b):
        raise ValueError(f"a spans {len(a)} dimensions, b {len(b)}: pass the smaller space first")
    return float(principal_cosines(a, b).square().mean())


def without(vectors: Tensor, removed: Tensor) -> Tensor:
    """Orthonormal basis of the span of `vectors` (k, *event) after the directions `removed` (m,
    *event), any m >= 0, were taken out of each, (k, *event).

    Raises ValueError where nothing of one of the vectors is left.
    """
    rows, gone = _rows(vectors, "vectors"), torch.linalg.qr(widened(removed).flatten(1).T).Q
    rows = rows - (rows @ gone) @ gone.T
    if int(torch.linalg.matrix_rank(rows, rtol=TILTED)) < len(rows):
        raise ValueError(
            "a direction of vectors lies in the span of removed: leave one of them out"
        )
    return torch.linalg.qr(rows.T).Q.T.view(vectors.shape)


# One basis ----------------------------------------------------------------------------------------


def frequency(vectors: Tensor) -> Tensor:
    r"""Mean spatial frequency of images (k, n, n), in periods an image, (k,):

        sum_w |w| |F e(w)|^2 / sum_w |F e(w)|^2,
        F the discrete Fourier transform, w from -n/2 to n/2 in each axis.

    White noise has about .38 n. Raises ValueError for other shapes and for an image of zeros.
    """
    x = _nonzero(vectors)
    if x.ndim != 3 or x.shape[1] != x.shape[2]:
        raise ValueError(f"vectors have shape {tuple(x.shape)}: pass gray squares (k, n, n)")
    power = torch.fft.fft2(x).abs().square()
    return (power * radii(x.shape[1]).to(power)).sum((1, 2)) / power.sum((1, 2))


def edges(image: Tensor, share: float = 0.2) -> Tensor:
    """The `share` of the pixels of an image (H, W) at which it changes most, boolean (H, W).

    By the length of the gradient in central differences, one-sided at the border.
    """
    if image.ndim != 2 or min(image.shape) < 2:
        raise ValueError(f"image has shape {tuple(image.shape)}: pass one gray image (H, W)")
    if not 0 < share < 1:
        raise ValueError(f"share is {share}: choose a number between 0 and 1")
    slope = torch.hypot(*torch.gradient(widened(image))).flatten()
    mask = torch.zeros_like(slope, dtype=torch.bool)
    mask[slope.topk(max(1, round(share * len(slope)))).indices] = True
    return mask.view(image.shape)


def energy_on(vectors: Tensor, mask: Tensor) -> Tensor:
    """Share of the energy of each of `vectors` (k, H, W) on the pixels of a boolean mask (H, W),
    (k,).

    Chance, the value of an even vector, is the mean of the mask.
    """
    if mask.dtype != torch.bool or vectors.shape[1:] != mask.shape:
        raise ValueError(
            f"mask is {mask.dtype} {tuple(mask.shape)}: pass booleans {tuple(vectors.shape[1:])}"
        )
    squares = _nonzero(vectors).square()
    return (squares * mask).sum((1, 2)) / squares.sum((1, 2))


# The Jacobian -------------------------------------------------------------------------------------


def asymmetry_on(jacobian: Jacobian, vectors: Tensor) -> float:
    """||V (J - J^T) V^T|| / ||V J V^T||, Frobenius, V orthonormal rows (k, *event): asymmetry
    between them alone."""
    v = _rows(vectors, "vectors")
    inner = v @ widened(jacobian.matvec(vectors).flatten(1)).T
    return float((inner - inner.T).norm() / inner.norm())


def asymmetry_along(jacobian: Jacobian, vectors: Tensor) -> float:
    """||(J - J^T) V^T|| / ||J V^T||, Frobenius, V orthonormal rows (k, *event): how far from
    symmetric is all that J makes of them.

    `asymmetry_on` sees only what stays in their span, of which a large antisymmetric matrix has
    little: v . (J - J^T) v = 0 for each.
    """
    _rows(vectors, "vectors")
    pushed, pulled = widened(jacobian.matvec(vectors)), widened(jacobian.adjoint(vectors))
    return float((pushed - pulled).norm() / pushed.norm())


def estimated_asymmetry(jacobian: Jacobian, probes: int = 16, seed: int = 0) -> float:
    """`jacobian.asymmetry` from random vectors v, sqrt( sum ||J v - J^T v||^2 / sum ||J v||^2 ),
    without the matrix.

    Numerator and denominator are unbiased estimates of the squared Frobenius norms.
    """
    v = _signs(positive_int("probes", probes), jacobian.y, seed)
    pushed, pulled = widened(jacobian.matvec(v)), widened(jacobian.adjoint(v))
    return float((pushed - pulled).norm() / pushed.norm())


# Errors without the clean image -------------------------------------------------------------------


@torch.no_grad()
def trace(denoiser: Denoiser, y: Tensor, sigma: float, probes: int = 1, seed: int = 0) -> Tensor:
    r"""tr J at every row of y (batch, *event), (batch,), unbiased: the mean of v . J v over random
    signs v.

    The effective dimension of the denoiser there. Hutchinson 1990; one forward derivative a probe
    for the whole batch.
    Exact for one row: `Jacobian(denoiser, y, sigma).matrix.trace()`.
    """
    # the denoiser cannot look at values while it is differentiated
    checked_sigma(y, sigma, denoiser.event_shape)
    total = y.new_zeros(len(y), dtype=accumulate_dtype(y.device))
    for probe in range(positive_int("probes", probes)):
        v = _signs(len(y), y, seed + probe)
        pushed = torch.func.jvp(lambda t: denoiser(t, sigma), (y,), (v,))[1]
        total += widened((v * pushed).flatten(1)).sum(1)
    return total / probes


def sure(x_hat: Tensor, y: Tensor, sigma: float, traces: Tensor) -> Tensor:
    r"""Stein's estimate of the squared error of each row, (batch,), which does not know the clean
    image (Stein 1981):

        SURE = ||y - x_hat||^2 + 2 sigma^2 tr J - sigma^2 d,   E SURE = E ||x_hat - x||^2.

    x_hat, y (batch, *event), traces (batch,) of the Jacobians, d the size of the event. It may be
    negative. Proved: `thm-sure`.
    """
    checked_sigma(y, sigma)
    if x_hat.shape != y.shape or traces.shape != (len(y),):
        raise ValueError(
            f"x_hat {tuple(x_hat.shape)}, y {tuple(y.shape)}, traces {tuple(traces.shape)}: pass two batches of one "
            "shape and one trace a row"
        )
    d = y[0].numel()
    return widened((y - x_hat).flatten(1)).square().sum(1) + sigma**2 * (2 * widened(traces) - d)


def _signs(n: int, like: Tensor, seed: int) -> Tensor:
    """n vectors of random signs: of all independent entries of variance 1 they give the trace with
    least variance."""
    g = torch.Generator().manual_seed(seed)
    return (2 * torch.randint(2, (n, *like.shape[1:]), generator=g) - 1).to(like)


def _nonzero(vectors: Tensor) -> Tensor:
    x = widened(checked_points(vectors, "vectors"))
    if not bool(x.flatten(1).any(1).all()):
        raise ValueError(
            "one of the vectors is zero: it has neither frequency nor energy, leave it out"
        )
    return x


def _rows(vectors: Tensor, name: str) -> Tensor:
    rows = widened(checked_points(vectors, name).flatten(1))
    gram = rows @ rows.T
    if float((gram - torch.eye(len(rows)).to(gram)).abs().max()) > TILTED:
        raise ValueError(
            f"the rows of {name} are not orthonormal: take them from torch.linalg.qr({name}.T).Q.T"
        )
    return rows
