"""The Jacobian of a denoiser at one noisy input: products with it, eigenvectors, singular vectors.

A network of convolutions and ReLUs is affine on the region of inputs that switch its ReLUs as y
does. With the switches frozen, a product with its Jacobian is one plain forward pass on a batch of
vectors.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .checks import checked_sigma, positive_int
from .denoisers.base import Denoiser

FROZEN, REFERENCE = "frozen masks", "vmap(jvp)"  # the two methods
RELUS = (F.relu, torch.relu, torch.Tensor.relu, F.leaky_relu)
# numbers in a batch of vectors, about what the caches of one core like: 64 images of 40 x 40
CHUNK = 102_400
# vectors that a Krylov step advances together: wider ones converge more slowly, narrower ones
# compute so
BLOCK = 8


class Jacobian:
    r"""J = dD(y, sigma)/dy at one noisy input, [i, j] = dD_i/dy_j, as a linear map of vectors of
    y's shape.

    For networks whose only non-linear layers are ReLU, leaky ReLU and max-pooling, `method` is
    "frozen masks": one pass at y records which units are on and which pixels win, and from then on
    the network f with these masks is affine and equals D around y, so that

        J V = f(V) - f(0)   and   J^T U = the gradient of <f(V), U>,

    with f(0) = 0 for a blind network without bias, where also J y = D(y) (Mohan et al. 2020;
    Kadkhodaie et al. 2024). This is used only when its products with eight vectors, four random
    from a fixed seed and four single pixels, equal those of the other method to rounding. That one,
    "vmap(jvp)", is forward and reverse differentiation by torch.func and takes any denoiser that
    torch can differentiate. Either can be asked for by name.

    y (1, *event), sigma one noise level in the units of y. Vectors go in chunks of `chunk` rows; a
    row of a product never depends on the others. The denoiser is left as it was, and must not
    change while its Jacobian is in use. Raises ValueError for a y or sigma that the denoiser
    refuses, a y of several rows, a network in training mode, and for method="frozen masks" where
    the test fails.
    """

    @torch.inference_mode(False)  # the adjoint needs a graph, whatever surrounds it
    def __init__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        sigma: float,
        method: str | None = None,
        chunk: int | None = None,
    ):
        if method not in (None, FROZEN, REFERENCE):
            raise ValueError(
                f"method is {method!r}: choose {FROZEN!r}, {REFERENCE!r}, or None to have it chosen"
            )
        level = checked_sigma(y, sigma, denoiser.event_shape)
        if len(y) != 1 or level.numel() != 1 or y.numel() == 0:
            raise ValueError(
                f"y has shape {tuple(y.shape)}, sigma {tuple(level.shape)}: a Jacobian is taken at one point and one "
                "level, pass y[i : i + 1] and a float"
            )
        if any(True for _ in denoiser.parameters()) and any(
            module.training for module in denoiser.modules()
        ):
            raise ValueError(
                f"the {type(denoiser).__name__} is in training mode: call its eval() first"
            )
        self.denoiser, self.y, self.sigma = denoiser, y.detach().clone(), float(level)
        self.chunk = positive_int("chunk", max(1, CHUNK // y.numel()) if chunk is None else chunk)
        self._graph: tuple[Tensor, Tensor] | None = None
        self.method = method or FROZEN
        if self.method == FROZEN and not self._freeze():
            if method == FROZEN:
                raise ValueError(
                    f"the {type(denoiser).__name__} is not affine once its ReLUs and max-poolings are frozen: pass "
                    f"method={REFERENCE!r} or None"
                )
            self.method = REFERENCE

    @torch.no_grad()
    def matvec(self, vectors: Tensor) -> Tensor:
        """J v for every row v of `vectors`, (k, *event) -> (k, *event)."""
        self._check(vectors)
        if self.method == REFERENCE:
            return self._pushed(vectors)
        return torch.cat([self._slope(part) for part in vectors.split(self.chunk)])

    @torch.inference_mode(False)
    def adjoint(self, vectors: Tensor) -> Tensor:
        """J^T u for every row u of `vectors`, (k, *event) -> (k, *event)."""
        self._check(vectors)
        if self.method == REFERENCE:
            pull = torch.func.vjp(self._estimate, self.y)[1]
            return torch.func.vmap(lambda u: pull(u[None])[0][0], chunk_size=self.chunk)(
                vectors.detach()
            ).detach()
        # The graph of f is built for one size of batch and kept; the last part is filled up with
        # zeros.
        size = math.ceil(len(vectors) / math.ceil(len(vectors) / self.chunk))
        if self._graph is None or len(self._graph[0]) != size:
            with torch.enable_grad():
                start = self.y.new_zeros(size, *self.y.shape[1:]).requires_grad_()
                self._graph = start, self._frozen(start)
        start, end = self._graph
        if not end.requires_grad:  # a constant denoiser
            return torch.zeros_like(vectors)
        parts = []
        for part in vectors.detach().split(size):
            full = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
            (pulled,) = torch.autograd.grad(
                end, start, full, retain_graph=True, materialize_grads=True
            )
            parts.append(pulled[: len(part)])
        return torch.cat(parts)

    @functools.cached_property
    def matrix(self) -> Tensor:
        """J as a (d, d) matrix, d the size of y, from d products; computed once and kept."""
        basis = torch.eye(self.y.numel(), dtype=self.y.dtype, device=self.y.device)
        return self.matvec(basis.view(-1, *self.y.shape[1:])).flatten(1).T

    def _estimate(self, y: Tensor) -> Tensor:
        return self.denoiser(y, self.sigma)

    def _pushed(self, vectors: Tensor) -> Tensor:
        def push(v: Tensor) -> Tensor:
            return torch.func.jvp(self._estimate, (self.y,), (v[None],))[1][0]

        return torch.func.vmap(push, chunk_size=self.chunk)(vectors)

    def _frozen(self, vectors: Tensor) -> Tensor:
        with _Frozen(self._masks):
            return self._estimate(vectors)

    def _slope(self, vectors: Tensor) -> Tensor:
        # Every row is brought to the length of the test's vectors, at which the difference from
        # f(0) keeps its digits.
        norms = vectors.flatten(1).norm(dim=1).view(-1, *[1] * (vectors.ndim - 1))
        scaled = vectors * (self._length / norms.masked_fill(norms == 0, 1))
        return (self._frozen(scaled) - self._origin) * (norms / self._length)

    @torch.no_grad()
    def _freeze(self) -> bool:
        """Record the masks at y; whether products with random vectors and with pixels are those of
        vmap(jvp)."""
        with _Record() as record:
            self._estimate(self.y)
        self._masks = record.masks
        g, d = torch.Generator().manual_seed(0), self.y.numel()
        pixels = torch.zeros(4, d).scatter(1, torch.randint(d, (4, 1), generator=g), 1.0)
        tests = (
            torch.cat([torch.randn(4, d, generator=g), pixels])
            .to(self.y)
            .view(-1, *self.y.shape[1:])
        )
        try:
            self._origin = self._frozen(torch.zeros_like(self.y))
            self._length = float(self.y.norm() + self._origin.norm()) or 1.0
            frozen = self._slope(tests)
        except (IndexError, RuntimeError):  # masks that do not fit a batch
            return False
        want = self._pushed(tests)
        # a denoiser may compute in a precision below y's; of bfloat16 the test would see nothing,
        # so it is never frozen
        eps = max(torch.finfo(t.dtype).eps for t in (self.y, *self.denoiser.parameters()))
        error, length, image = (t.flatten(1).norm(dim=1) for t in (frozen - want, tests, want))
        return bool((error <= min(100 * eps, 1e-3) * (length + image)).all())

    def _check(self, vectors: Tensor) -> None:
        if (
            vectors.shape[1:] != self.y.shape[1:]
            or len(vectors) == 0
            or vectors.dtype != self.y.dtype
        ):
            want = f"(k, {', '.join(map(str, self.y.shape[1:]))})"
            raise ValueError(
                f"vectors have shape {tuple(vectors.shape)} and dtype {vectors.dtype}: pass {want} with k >= 1, "
                f"{self.y.dtype} as y"
            )
        if not vectors.isfinite().all():
            raise ValueError("vectors hold NaN or infinity: remove those rows first")


class Eigen(NamedTuple):
    """values (k,) descending; vectors (k, *event) orthonormal; residuals (k,), ||S v - value v||
    for each pair.

    An eigenvalue of S lies within a pair's residual of its value.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


def eigen(
    jacobian: Jacobian, k: int | None = None, basis: int | None = None, seed: int = 0
) -> Eigen:
    """Eigenvalues and eigenvectors of the symmetric part S = (J + J^T) / 2, all d of them or the k
    largest.

    All: from the full matrix. The k largest: block Krylov with full reorthogonalisation from a
    random start block drawn from `seed` (Golub & Underwood 1977; Saad, *Numerical Methods for Large
    Eigenvalue Problems*, 6.3), until the space has dimension `basis`, by default max(5 k, 64). This
    costs `basis` products with J and with J^T. Its values are at most the true ones (Cauchy's
    interlacing), and `residuals` says what is left to gain: raise `basis` to lower them.

    >>> from helpers.denoisers import LinearDenoiser
    >>> wiener = LinearDenoiser.from_moments(torch.zeros(2), torch.diag(torch.tensor([4.0, 1.0])))
    >>> eigen(Jacobian(wiener, torch.zeros(1, 2), 1.0)).values.round(decimals=4)
    tensor([0.8000, 0.5000])
    """
    shape, d = jacobian.y.shape[1:], jacobian.y.numel()
    if k is None:
        if basis is not None:
            raise ValueError(f"basis is {basis} without k: it belongs to the k largest, pass k too")
        symmetric = (jacobian.matrix + jacobian.matrix.T) / 2
        values, vectors = (t.flip(-1) for t in torch.linalg.eigh(symmetric))
        return Eigen(
            values, vectors.T.view(-1, *shape), (symmetric @ vectors - values * vectors).norm(dim=0)
        )
    if positive_int("k", k) > d:
        raise ValueError(f"k is {k} in dimension {d}: choose 1 to {d}, or None for all")
    size = min(d, max(5 * k, 64)) if basis is None else positive_int("basis", basis)
    if not k <= size <= d:
        raise ValueError(f"basis is {size} for k = {k} in dimension {d}: choose {k} to {d}")
    block = torch.randn(min(BLOCK, size), d, generator=torch.Generator().manual_seed(seed)).to(
        jacobian.y
    )
    space = images = block[:0]
    while len(space) < size:
        block = block[: size - len(space)]
        for _ in range(
            3
            # where the space is exhausted the first pass leaves rounding errors, which the others
            # clean
        ):
            block = torch.linalg.qr((block - (block @ space.T) @ space).T).Q.T
        vectors = block.reshape(-1, *shape)
        block_image = ((jacobian.matvec(vectors) + jacobian.adjoint(vectors)) / 2).flatten(1)
        space, images = torch.cat([space, block]), torch.cat([images, block_image])
        block = block_image
    projected = space @ images.T
    values, weights = torch.linalg.eigh((projected + projected.T) / 2)
    values, weights = values.flip(0)[:k], weights.flip(1)[:, :k].T
    vectors = weights @ space
    return Eigen(
        values, vectors.view(-1, *shape), (weights @ images - values[:, None] * vectors).norm(dim=1)
    )


def svd(jacobian: Jacobian) -> tuple[Tensor, Tensor, Tensor]:
    """J = sum_i s_i u_i v_i^T: left vectors (d, *event), singular values (d,) descending, right
    vectors (d, *event)."""
    left, values, right = torch.linalg.svd(jacobian.matrix)
    return left.T.reshape(-1, *jacobian.y.shape[1:]), values, right.view(-1, *jacobian.y.shape[1:])


def asymmetry(jacobian: Jacobian) -> float:
    """||J - J^T|| / ||J||, Frobenius: 0 for the gradient of a potential, as Bayes denoisers are;
    nan for J = 0."""
    matrix = jacobian.matrix
    return float((matrix - matrix.T).norm() / matrix.norm())


def _channels_last(x: Tensor) -> Tensor:
    """Images in the layout that convolutions on a processor prefer; it carries over to the layers
    that follow."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


class _Record(TorchFunctionMode):
    """Runs as usual and records in call order the slope of every ReLU and the winner of every
    max-pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in RELUS:
            on, off = func(torch.tensor([1.0, -1.0]).to(args[0]), *args[1:], **kwargs)
            self.masks.append(_channels_last(torch.where(args[0] > 0, on, -off)))
        elif func is F.max_pool2d:
            self.masks.append(func(*args, **{**kwargs, "return_indices": True})[1])
        return func(*args, **kwargs)


class _Frozen(TorchFunctionMode):
    """Gives every ReLU and max-pooling the recorded mask in place of its own; IndexError when they
    do not match."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__()
        self.masks = list(reversed(masks))

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in RELUS:
            return _channels_last(args[0]) * self.masks.pop()
        if func is F.max_pool2d:
            winners = self.masks.pop()
            flat = winners.flatten(-2).expand(len(args[0]), -1, -1)
            return args[0].flatten(-2).gather(-1, flat).unflatten(-1, winners.shape[-2:])
        return func(*args, **(kwargs or {}))
