"""The Jacobian of a denoiser: frozen masks = torch.func = float64 autograd; eigenpairs and their
errors; bad input."""

import copy

import pytest
import torch
from nets import noise as normal
from nets import settled
from torch import nn
from torch.nn import functional as F

from helpers import data, models
from helpers.denoisers import (
    MLP,
    Denoiser,
    GaussianMixture,
    LinearConvolution,
    LinearDenoiser,
    PerLevelMLP,
    Polynomial,
    PosteriorMean,
    ProjectedDenoiser,
    RandomFeatures,
)
from helpers.denoisers.networks.unet import OPTIONS, UNet
from helpers.jacobian import FROZEN, REFERENCE, Jacobian, asymmetry, eigen, svd


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return normal(*shape, seed=seed, dtype=dtype)


def ready(**options) -> UNet:
    """A float64 network in evaluation mode whose norms and biases are of visible size."""
    net = UNet(**{"blocks": 2, "channels": 5, **options}).double()
    with torch.no_grad():
        for i, (name, p) in enumerate(net.named_parameters()):
            if name.endswith("bias"):
                p.copy_(0.3 * noise(*p.shape, seed=i))
    return settled(net)


def by_autograd(denoiser: nn.Module, y: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.autograd.functional.jacobian(lambda v: denoiser(v, sigma), y).reshape(
        y.numel(), y.numel()
    )


def agree(denoiser: nn.Module, y: torch.Tensor, sigma: float, method: str) -> None:
    """Both methods' J V and J^T U and the matrix against autograd, for 7 vectors in chunks of 3."""
    want = by_autograd(denoiser, y, sigma)
    v = noise(7, *y.shape[1:], seed=1)
    chosen, reference = (
        Jacobian(denoiser, y, sigma, chunk=3),
        Jacobian(denoiser, y, sigma, REFERENCE),
    )
    assert (chosen.method, reference.method) == (method, REFERENCE)
    for jacobian in (chosen, reference):
        torch.testing.assert_close(
            jacobian.matvec(v).flatten(1), v.flatten(1) @ want.T, rtol=1e-9, atol=1e-9
        )
        torch.testing.assert_close(
            jacobian.adjoint(v).flatten(1), v.flatten(1) @ want, rtol=1e-9, atol=1e-9
        )
        torch.testing.assert_close(jacobian.matrix, want, rtol=1e-9, atol=1e-9)


UNETS = [{}] + [
    {name: value} for name, values in OPTIONS.items() for value in values if name != "level"
]
UNETS += [
    {"bias": True},
    {"blind": False},
    {"blind": False, "level": "scale"},
    {"bias": True, "blind": False, "normalisation": "batch", "pooling": "max"},
    {"image_channels": 3, "pooling": "max", "upsampling": "bilinear"},
]


@pytest.mark.parametrize("options", UNETS, ids=str)
def test_unet(options):
    agree(ready(**options), noise(1, options.get("image_channels", 1), 8, 8, seed=3), 0.7, FROZEN)


def test_gray_images_need_no_channel_axis():
    agree(ready(), noise(1, 8, 12), 0.7, FROZEN)


POINTS = noise(9, 2, seed=5)
SIGNALS = noise(30, 8, seed=6)


@pytest.mark.parametrize(
    ("denoiser", "method"),
    [
        (MLP(8, activation="relu").double(), FROZEN),
        (MLP(8, activation="silu").double(), REFERENCE),
        (MLP(8, activation="tanh").double(), REFERENCE),
        (PerLevelMLP(torch.tensor([1.0, 0.5])).double(), FROZEN),
        (PosteriorMean(POINTS), REFERENCE),
        (PosteriorMean(POINTS, smoothing=0.3), REFERENCE),
        (PosteriorMean(POINTS[:1]), FROZEN),  # a constant
        (PosteriorMean(SIGNALS.view(30, 2, 4)), REFERENCE),
        (GaussianMixture(POINTS, 0.2), REFERENCE),
        (GaussianMixture(POINTS[:1], 0.2), FROZEN),
        (LinearDenoiser.from_points(SIGNALS), FROZEN),
        (LinearConvolution.from_points(SIGNALS, 3), FROZEN),
        (ProjectedDenoiser(POINTS, 1), REFERENCE),
        (Polynomial(POINTS, 1), FROZEN),
        (Polynomial(POINTS, 3), REFERENCE),
        (RandomFeatures(POINTS, 12), FROZEN),
    ],
    ids=lambda x: getattr(type(x), "__name__", x) if isinstance(x, nn.Module) else x,
)
def test_denoisers(denoiser, method):
    y = 0.5 * noise(1, *denoiser.event_shape, seed=2)
    agree(denoiser.eval(), y, 0.5, method)


class Net(Denoiser):
    """A small convolutional network around one layer under test, called twice."""

    def __init__(self, layer):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        shape = (4, 1, 3, 3), (4, 4, 3, 3), (1, 4, 1, 1)
        self.kernels = nn.ParameterList(
            0.5 * torch.randn(s, generator=g, dtype=torch.float64) for s in shape
        )
        self.layer = layer

    def estimate(self, y, sigma):
        h = self.layer(F.conv2d(y, self.kernels[0], padding=1))
        h = self.layer(F.conv2d(h, self.kernels[1], padding=1))
        return y - F.interpolate(F.conv2d(h, self.kernels[2]), y.shape[2:])


class Forgetful(nn.ReLU):
    """A ReLU that works in place and whose caller ignores what it returns."""

    def forward(self, x):
        x.relu_()
        return x


@pytest.mark.parametrize(
    ("layer", "method"),
    [
        (nn.ReLU(), FROZEN),
        (nn.ReLU(inplace=True), FROZEN),
        (nn.LeakyReLU(0.3), FROZEN),
        (torch.relu, FROZEN),
        (torch.Tensor.relu, FROZEN),
        (nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)), FROZEN),
        (lambda x: F.max_pool2d(x, 2, ceil_mode=True), FROZEN),
        (Forgetful(), REFERENCE),
        (nn.ReLU6(), REFERENCE),
        (nn.GELU(), REFERENCE),
        (nn.SiLU(), REFERENCE),
        (lambda x: x.abs(), REFERENCE),
        (lambda x: x.clamp(-1, 1), REFERENCE),
        (lambda x: F.normalize(x), REFERENCE),
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], REFERENCE),
    ],
)
def test_layers(layer, method):
    agree(Net(layer).eval(), noise(1, 1, 6, 6, seed=4), 0.7, method)


def test_affine_everywhere_but_at_y_is_not_affine():
    """Random vectors see 2 y only; the slope at y does not lie."""

    class Bump(Denoiser):
        def estimate(self, y, sigma):
            return 2 * y + torch.exp(-1e3 * (y - 1).square().sum(1, keepdim=True)) * (y - 1)

    y = torch.ones(1, 6, dtype=torch.float64)
    agree(Bump(), y, 1.0, REFERENCE)
    agree(Bump(), y + 9, 1.0, FROZEN)


def test_affine_for_random_vectors_but_not_for_a_single_pixel():
    class Clipped(Denoiser):
        def estimate(self, y, sigma):
            return y.clamp(-6, 6)

    agree(Clipped(), noise(1, 400), 1.0, REFERENCE)


def test_nearly_affine_is_not_affine():
    """Off by 3e-5 in float32; and a network in bfloat16, which no test can tell from an affine one."""

    class Bent(Denoiser):
        def estimate(self, y, sigma):
            return 100 * torch.tanh(y / 100)

    y = noise(1, 8, 8).float()
    assert Jacobian(Bent(), y, 1.0).method == REFERENCE
    assert Jacobian(ready().float(), y, 1.0).method == FROZEN
    assert Jacobian(ready().bfloat16(), y, 1.0).method == REFERENCE


class Rows(Net):
    """Rows one by one: a call of the ReLU for each."""

    def estimate(self, y, sigma):
        return torch.cat([super(Rows, self).estimate(row, sigma) for row in y.split(1)])


class Patches(Net):
    """Quarters of the image as a batch of their own."""

    def estimate(self, y, sigma):
        quarters = F.unfold(y, 3, stride=3).mT.reshape(-1, 1, 3, 3)
        x_hat = super().estimate(quarters, sigma).reshape(len(y), 4, 9).mT
        return F.fold(x_hat, y.shape[2:], 3, stride=3)


@pytest.mark.parametrize("kind", [Rows, Patches])
def test_masks_that_do_not_fit_a_batch_are_not_used(kind):
    net, y = kind(nn.ReLU()).eval(), noise(1, 1, 6, 6)
    agree(net, y, 1.0, REFERENCE)
    with pytest.raises(ValueError, match="is not affine once .* pass method='vmap"):
        Jacobian(net, y, 1.0, FROZEN)


@pytest.mark.parametrize("options", [{}, {"bias": True, "blind": False, "data_std": 0.05}], ids=str)
def test_single_precision_keeps_its_digits(options):
    """An f(0) far longer than the vectors costs nothing; y in float64 does not make float32 weights
    exact."""
    net, y = ready(**options), noise(1, 1, 16, 16, seed=7)
    want = by_autograd(net, y, 0.3)
    net = net.float()
    for given in (y.float(), y):
        jacobian = Jacobian(net, given, 0.3)
        assert jacobian.method == FROZEN
        for scale in (1e-3, 1.0):
            basis = scale * torch.eye(256, dtype=given.dtype).view(256, 1, 16, 16)
            error = jacobian.matvec(basis).flatten(1).T / scale - want
            assert error.norm() < 3e-6 * want.norm()
    assert jacobian.matvec(0 * y).norm() == 0


def test_a_bias_free_denoiser_is_its_jacobian():
    net, y = ready(pooling="max"), noise(1, 16, 16)
    torch.testing.assert_close(Jacobian(net, y, 1.0).matvec(y), net(y, 1.0))


@pytest.mark.parametrize("method", [FROZEN, REFERENCE])
@pytest.mark.parametrize("name", ["fashion-unet-blind-n10000", "fashion-n1000-a"])
def test_trained_networks_adjoint_identity(name, method):
    y = data.fashion_mnist(1, "test") + 0.2 * noise(1, 28, 28).float()
    jacobian = Jacobian(models.load(name), y, 0.2, method)
    u, v = noise(2, 5, 28, 28, seed=1).float()
    left, right = (jacobian.matvec(v) * u).sum((1, 2)), (v * jacobian.adjoint(u)).sum((1, 2))
    torch.testing.assert_close(left, right, rtol=0, atol=1e-5 * float(u[0].norm() * v[0].norm()))
    assert Jacobian(models.load(name), y, 0.2).method == FROZEN


@pytest.mark.parametrize("sigma", [0.8, 2.0])
def test_the_bayes_denoiser_s_jacobian_is_the_posterior_covariance(sigma):
    points = noise(20, 3, 4, seed=8)
    denoiser, y = PosteriorMean(points), 0.3 * noise(1, 3, 4)
    w, x = denoiser.weights(y, sigma)[0], points.flatten(1)
    centred = x - w @ x
    jacobian = Jacobian(denoiser, y, sigma)
    torch.testing.assert_close(jacobian.matrix, (w[:, None] * centred).T @ centred / sigma**2)
    assert asymmetry(jacobian) < 1e-12


@pytest.mark.parametrize("method", [FROZEN, REFERENCE])
@pytest.mark.parametrize("options", [{}, {"bias": True, "blind": False}], ids=str)
def test_rows_and_chunks_do_not_matter(method, options):
    net, y, v = ready(**options), noise(1, 8, 8), noise(6, 8, 8, seed=1)
    v[3] *= 1e6
    whole = Jacobian(net, y, 0.5, method)
    for product in ("matvec", "adjoint"):
        want = getattr(whole, product)(v)
        for chunk in (1, 4, 100):
            parts = getattr(Jacobian(net, y, 0.5, method, chunk), product)(v)
            torch.testing.assert_close(parts, want, rtol=1e-9, atol=1e-12)
        for i in range(6):
            torch.testing.assert_close(
                getattr(whole, product)(v[i : i + 1]), want[i : i + 1], rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("method", [FROZEN, REFERENCE])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_products_do_not_depend_on_the_surrounding_mode(mode, method):
    net, y, v = ready(bias=True), noise(1, 8, 8), noise(3, 8, 8, seed=1)
    want = by_autograd(net, y, 0.5)
    with mode():
        jacobian = Jacobian(net, 1 * y, 0.5, method)
        pushed, pulled = jacobian.matvec(1 * v), jacobian.adjoint(1 * v)
    assert not pushed.requires_grad and not pulled.requires_grad
    torch.testing.assert_close(pushed.flatten(1), v.flatten(1) @ want.T)
    torch.testing.assert_close(pulled.flatten(1), v.flatten(1) @ want)


# Eigenvectors -------------------------------------------------------------------------------------


def symmetric_part(jacobian: Jacobian) -> torch.Tensor:
    return (jacobian.matrix + jacobian.matrix.T).double() / 2


def test_full_eigen_and_svd_rebuild_the_matrix():
    jacobian = Jacobian(ready(), noise(1, 1, 8, 8), 1.0)
    values, vectors, residuals = eigen(jacobian)
    flat = vectors.flatten(1)
    assert (
        vectors.shape == (64, 1, 8, 8)
        and bool((values.diff() <= 0).all())
        and residuals.max() < 1e-12
    )
    torch.testing.assert_close(flat.T @ (values[:, None] * flat), symmetric_part(jacobian))
    left, s, right = svd(jacobian)
    assert left.shape == right.shape == (64, 1, 8, 8) and bool((s.diff() <= 0).all())
    torch.testing.assert_close(left.flatten(1).T @ (s[:, None] * right.flatten(1)), jacobian.matrix)
    matrix = by_autograd(jacobian.denoiser, jacobian.y, 1.0)
    torch.testing.assert_close(
        asymmetry(jacobian), float((matrix - matrix.T).norm() / matrix.norm())
    )


@pytest.mark.parametrize("name", ["fashion-unet-blind-n10000", "fashion-n1000-a"])
def test_largest_eigenpairs_of_a_trained_network(name):
    """Against the full matrix in float64: each true eigenvalue is missed by no more than stated,
    and from below."""
    y = data.fashion_mnist(1, "test") + 0.2 * noise(1, 28, 28).float()
    jacobian = Jacobian(models.load(name), y, 0.2)
    symmetric = symmetric_part(jacobian)
    true = torch.linalg.eigvalsh(symmetric).flip(0)
    for k, basis in ((20, None), (20, 200), (5, 16)):
        values, vectors, residuals = eigen(jacobian, k, basis)
        flat = vectors.flatten(1).double()
        rounding = 2e-6 * float(true.abs().max())
        torch.testing.assert_close(
            flat @ flat.T, torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-5
        )
        want = (flat @ symmetric - values[:, None] * flat).norm(dim=1)
        torch.testing.assert_close(residuals.double(), want, rtol=1e-2, atol=rounding)
        distance = (values[:, None] - true).abs().amin(1)
        assert bool(
            (distance <= residuals + rounding).all() and (values <= true[:k] + rounding).all()
        )
        if basis == 200:
            assert (values - true[:k]).abs().max() < 1e-4
        if basis == 16:  # too few to converge, and it says so
            assert residuals.max() > 1e-2


def test_krylov_survives_an_exhausted_space():
    """Rank 3 and a triple eigenvalue: the space is exhausted after one block, and stays
    orthonormal."""
    axes = torch.linalg.qr(noise(40, 3)).Q
    denoiser = LinearDenoiser(
        torch.zeros(40, dtype=torch.float64), axes, torch.ones(3, dtype=torch.float64)
    )
    jacobian = Jacobian(denoiser, noise(1, 40), 1.0)
    values, vectors, residuals = eigen(jacobian, 10, 40)
    torch.testing.assert_close(
        values, torch.cat([torch.full((3,), 0.5), torch.zeros(7)]).double(), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        vectors @ vectors.T, torch.eye(10, dtype=torch.float64), rtol=0, atol=1e-10
    )
    assert residuals.max() < 1e-12


def test_two_dimensions_and_seeds():
    jacobian = Jacobian(GaussianMixture(POINTS, 0.2), noise(1, 2), 0.5)
    for k in (1, 2):
        torch.testing.assert_close(eigen(jacobian, k).values, eigen(jacobian).values[:k])
    image = Jacobian(ready(), noise(1, 16, 16), 1.0)
    one, same, other = (eigen(image, 4, 24, seed).values for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


# What must not change, and what is refused --------------------------------------------------------


def fingerprint(net: nn.Module) -> list:
    return [
        (name, m.training, sorted(vars(m)), len(m._forward_hooks))
        for name, m in net.named_modules()
    ]


@pytest.mark.parametrize("options", [{}, {"pooling": "max", "bias": True, "blind": False}], ids=str)
def test_the_denoiser_is_left_as_it_was(options):
    net, y, batch = ready(**options), noise(1, 8, 8), noise(3, 8, 8, seed=1)
    calls = []
    net.mid_block.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        before, weights, marks = net(batch, 0.5), copy.deepcopy(net.state_dict()), fingerprint(net)
    generator = torch.get_rng_state()
    jacobian = Jacobian(net, y, 0.5)
    jacobian.matvec(batch), jacobian.adjoint(batch)
    assert torch.equal(generator, torch.get_rng_state())
    assert fingerprint(net) == marks and all(
        torch.equal(v, weights[k]) for k, v in net.state_dict().items()
    )
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    with torch.no_grad():
        assert torch.equal(net(batch, 0.5), before)
    calls.clear()
    jacobian.matvec(batch)
    assert calls == [1]  # the hooks stay at work
    handle = net.decoder[1].register_forward_pre_hook(lambda *_: 1 / 0)
    for product in (jacobian.matvec, Jacobian.adjoint.__get__(jacobian)):
        with pytest.raises(ZeroDivisionError):
            product(noise(2, 8, 8))
    handle.remove()
    with torch.no_grad():
        assert torch.equal(net(batch, 0.5), before) and fingerprint(net) == marks


IMAGE, NET = torch.zeros(1, 8, 8), UNet(1, channels=4).eval()
READY = Jacobian(NET, IMAGE + 1, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Jacobian(NET, torch.zeros(2, 8, 8), 1.0),
            r"y has shape \(2, 8, 8\).* pass y\[i : i \+ 1\]",
        ),
        (lambda: Jacobian(NET, torch.zeros(0, 8, 8), 1.0), r"y has shape \(0, 8, 8\)"),
        (
            lambda: Jacobian(PosteriorMean(POINTS), POINTS[0], 1.0),
            r"y has shape \(2,\).* one point is y\[None\]",
        ),
        (lambda: Jacobian(NET, IMAGE, 0.0), "sigma is 0.0: .* positive"),
        (lambda: Jacobian(NET, IMAGE, -1.0), "sigma is -1.0: .* positive"),
        (lambda: Jacobian(NET, IMAGE.int(), 1.0), r"dtype torch.int32: .* y.float\(\)"),
        (lambda: Jacobian(NET, IMAGE + torch.nan, 1.0), "y holds NaN"),
        (lambda: Jacobian(NET, IMAGE[:, :7], 1.0), "height is 7"),
        (
            lambda: Jacobian(NET, IMAGE, 1.0, "exact"),
            "method is 'exact': choose 'frozen masks', 'vmap",
        ),
        (lambda: Jacobian(NET, IMAGE, 1.0, chunk=0), "chunk is 0"),
        (
            lambda: Jacobian(UNet(1, channels=4), IMAGE, 1.0),
            r"the UNet is in training mode: call its eval\(\)",
        ),
        (
            lambda: Jacobian(MLP(4).eval(), torch.ones(1, 2), 1.0, FROZEN),
            "the MLP is not affine .* pass method='vmap",
        ),
        (lambda: READY.matvec(torch.zeros(1, 4, 4)), r"shape \(1, 4, 4\) .* pass \(k, 8, 8\)"),
        (lambda: READY.matvec(torch.zeros(8, 8)), r"shape \(8, 8\) .* pass \(k, 8, 8\)"),
        (lambda: READY.adjoint(torch.zeros(0, 8, 8)), r"shape \(0, 8, 8\) .* k >= 1"),
        (lambda: READY.adjoint(IMAGE.double()), "dtype torch.float64: pass .* torch.float32 as y"),
        (lambda: READY.matvec(IMAGE + torch.inf), "vectors hold NaN or infinity"),
        (lambda: eigen(READY, 65), "k is 65 in dimension 64: choose 1 to 64"),
        (lambda: eigen(READY, 0), "k is 0"),
        (lambda: eigen(READY, 10, 9), "basis is 9 for k = 10 in dimension 64: choose 10 to 64"),
        (lambda: eigen(READY, 10, 65), "basis is 65"),
        (lambda: eigen(READY, basis=10), "basis is 10 without k"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_one_part_in_training_mode_is_refused():
    net = ready()
    net.mid_block.train()
    with pytest.raises(ValueError, match="training mode"):
        Jacobian(net, noise(1, 8, 8), 1.0)
