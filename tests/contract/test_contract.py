"""The contract of `helpers.denoisers.base`: all denoisers of the package, in every context of
torch.

An example of each: of the class's own options `small`, or a row of DENOISERS. Where a context
cannot work for a denoiser it says so in words: FITTED and NUMPY list which.
"""

import copy
import functools
import importlib
import inspect
import pickle
import pkgutil
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
import torch
from nets import noise
from pretend import DEVICE, Machine
from torch.autograd.functional import jacobian
from torch.func import grad, jacrev, jvp, vmap

import helpers
from helpers import checks, models, released
from helpers import denoisers as d
from helpers.data.plane import Checkerboard
from helpers.denoisers.base import drawn_from
from helpers.jacobian import Jacobian
from helpers.kernels.masked import wiener_masks
from helpers.lab.export import export
from helpers.training import Recipe, train

if find_spec("helpers.systems"):
    import wings
else:
    wings = None


def plane(seed):
    return noise(12, 2, seed=seed, dtype=torch.float64)


def images(seed):
    return noise(5, 6, 6, seed=seed).sigmoid()


def masks(points, sigma):
    return wiener_masks(torch.cov(points.flatten(1).T), sigma)


def dilated(seed):
    with drawn_from(seed):
        return released.DilatedUNet()


def told(network, seed):
    """What starts as 0 is drawn."""
    with drawn_from(seed):
        for weight in (p for p in network.parameters() if p.ndim > 1 and not p.any()):
            torch.nn.init.kaiming_normal_(weight, 0.1)
    return network.eval()


def below(cls):
    return {cls}.union(*map(below, cls.__subclasses__()))


def example(cls):
    """Of its `small` options, of gray images where it takes points, from a seed."""
    make = getattr(cls, "from_points", cls)

    def made(s):
        given = {"seed": s} if issubclass(cls, d.Network) else {}
        if "points" in inspect.signature(make).parameters:
            given["points"] = images(s)
        return told(make(**given, **cls.small), s)

    return made


ABSTRACT = {"Denoiser", "Network", "FeatureRegression", "WindowRegression", "_Filter"}
GRAY = (6, 6)  # the event of denoisers that fix none
DENOISERS = {  # from a seed, for data and weights
    "mixture": lambda s: d.GaussianMixture(plane(s), 0.3),
    "convolution": lambda s: d.LinearConvolution.from_points(images(s), 3),
    "linear": lambda s: d.LinearDenoiser.from_points(images(s), 3),
    "local": lambda s: d.LocalMean(images(s), 3),
    "local, a table": lambda s: d.LocalMean(images(s), {0.1: 3, 9.0: 5}, "equivariant"),
    "crops": lambda s: d.LocalMean(images(s), 4, "composite"),
    "masks": lambda s: d.MaskedMean(images(s), masks(images(s), 0.5)),
    "masks, a function": lambda s: d.MaskedMean(
        images(s), functools.partial(masks, images(0)), True
    ),
    "mlp": lambda s: d.MLP(8, seed=s),
    "mlp per level": lambda s: d.PerLevelMLP(torch.tensor([3.0, 1.0, 0.1]), width=8, seed=s),
    "polynomial": lambda s: d.Polynomial(plane(s), 3),
    "gradient": lambda s: d.Polynomial(plane(s), 2, gradient=True),
    "pooled": lambda s: d.PooledConvolution.from_points(images(s), 2),
    "posterior mean": lambda s: d.PosteriorMean(plane(s)),
    "posterior mean of images": lambda s: d.PosteriorMean(images(s), 0.2),
    "projected": lambda s: d.ProjectedDenoiser(plane(s), 1),
    "projected mixture": lambda s: d.ProjectedDenoiser(d.GaussianMixture(plane(s), 0.3), 1),
    "free decoder": lambda s: d.FreeDecoder(plane(s), 1),
    "free decoder, mixture": lambda s: d.FreeDecoder(d.GaussianMixture(plane(s), 0.3), 1),
    "free encoder": lambda s: d.FreeEncoder(plane(s), 1),
    "free encoder, mixture": lambda s: d.FreeEncoder(d.GaussianMixture(plane(s), 0.3), 1),
    "random features": lambda s: d.RandomFeatures(plane(s), 10),
    "two images": lambda s: d.TwoImages(images(s)[:2], 3),
    "unet, told": lambda s: told(d.UNet(1, 4, blind=False, level="scale", seed=s), s),
    "chain, told": lambda s: told(d.CNN(3, 4, normalisation="none", blind=False, seed=s), s),
    "image mlp, told": lambda s: told(d.ImageMLP(6, 1, 6, 2, False, s), s),
    "checkerboard": lambda s: Checkerboard(),
    "dilated": dilated,
    "zigzag": lambda s: d.Zigzag(plane(s), 0.2),
    **(wings.DENOISERS if wings else {}),
}
for module in pkgutil.walk_packages(helpers.__path__, "helpers."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
WHOLE = {cls for cls in below(d.Denoiser) if cls.__module__.startswith("helpers.")}
EXAMPLES = sorted(
    (cls for cls in WHOLE if cls.small is not d.Denoiser.small and cls.__name__ not in ABSTRACT),
    key=lambda cls: cls.__name__,
)
DENOISERS |= {cls.__name__: example(cls) for cls in EXAMPLES}
NETWORKS = [cls.__name__ for cls in EXAMPLES if issubclass(cls, d.Network)]
EVENTS = {
    "Fourier cut": (8,),
    "corrected": (2, 8, 8),
    "UNet": (1, 6, 6),
    "PerLevel": (1, 6, 6),
    "dilated": (1, 6, 6),
}

# What a denoiser cannot do, it refuses in these words. Fitted anew at each level: no vmap over
# sigma, no derivative.
NUMPY = {"cycle spun", "total variation", "non-local", "BayesShrink", "wavelets"}
NUMPY |= {"curvelets", "directions"}
FITTED = {
    *(
        "Hermite",
        "local, a table",
        "masks, a function",
        "mlp per level",
        "PerLevel",
        "polynomial",
        "gradient",
        "pooled",
    ),
    *("random features", "released polynomial", "features in time", "cycle spun"),
}
IN_NUMPY = "computes in NumPy, without derivatives, vmap or export: pass y.detach()"
FITTED_ANEW = r"sigma is under vmap or differentiated.* pass a batch with sigma \(batch,\)"

LEVELS = torch.tensor([0.7, 1.3, 0.7])


@functools.cache
def built(name):
    return DENOISERS[name](0)


def noisy(name, dtype=torch.float32):
    event = built(name).event_shape or EVENTS.get(name, GRAY)
    return noise(3, *event, seed=5, dtype=dtype)


def same(found, want, tolerance=1e-5):
    assert (found.shape, found.dtype, found.device) == (want.shape, want.dtype, want.device)
    assert found.isfinite().all() and torch.allclose(found, want, rtol=tolerance, atol=tolerance)


every = pytest.mark.parametrize("name", DENOISERS)


def test_no_denoiser_is_left_out():
    # which checks the input
    assert not [cls for cls in WHOLE - {d.Denoiser} if "forward" in vars(cls)]
    without = {cls.__name__ for cls in WHOLE - {type(built(name)) for name in DENOISERS}}
    assert without == ABSTRACT, "give the class options `small`, or DENOISERS a row"


@every
def test_any_batch_layout_type_and_form_of_sigma(name):
    denoiser, y = built(name), noisy(name)
    x_hat = denoiser(y, 0.7)
    same(x_hat, denoiser(y.double(), 0.7).float(), 1e-3)
    for n in range(3):
        same(denoiser(y[:n], 0.7), x_hat[:n])
    same(denoiser(y.movedim(0, -1).contiguous().movedim(-1, 0), 0.7), x_hat)
    if y.ndim == 4:
        same(denoiser(y.contiguous(memory_format=torch.channels_last), 0.7), x_hat)
    for dtype in (torch.float16, torch.bfloat16):
        half = y.to(dtype)
        same(denoiser(half, 0.7), denoiser(half.float(), 0.7).to(dtype), torch.finfo(dtype).eps)
    for sigma in (torch.tensor(0.7), torch.full((3,), 0.7)):
        same(denoiser(y, sigma), x_hat)
    rows = [denoiser(y[i : i + 1], level) for i, level in enumerate(LEVELS.tolist())]
    same(denoiser(y, LEVELS), torch.cat(rows))
    same(denoiser(y[[1, 2, 0]], LEVELS[[1, 2, 0]]), torch.cat(rows)[[1, 2, 0]])


@every
def test_no_mode_of_torch_changes_the_result(name):
    denoiser, y = built(name), noisy(name)
    x_hat, y_slope = denoiser(y, 0.7), y.clone().requires_grad_(name not in NUMPY)
    with torch.inference_mode():
        made, start = DENOISERS[name](0), y.clone()
        same(made(y, 0.7), x_hat)
    same(made(start, 0.7), x_hat)
    # what inference mode kept is saved
    made(y_slope, 0.7).sum().backward() if y_slope.requires_grad else None
    with torch.no_grad():
        same(denoiser(y_slope, 0.7), x_hat)
    network = next(denoiser.parameters(), None) is not None
    with torch.autocast("cpu", torch.bfloat16):
        same(denoiser(y, 0.7), x_hat, 0.1 if network else 1e-5)
    torch.set_default_dtype(torch.float64)
    try:
        same(denoiser(y, 0.7), x_hat)
        made = DENOISERS[name](0)(y, 0.7)  # of other random numbers
        assert made.shape == y.shape and made.dtype == y.dtype and made.isfinite().all()
    finally:
        torch.set_default_dtype(torch.float32)


@every
def test_copies_and_threads_agree(name):
    denoiser, y = built(name), noisy(name)
    x_hat = denoiser(y, 0.7)
    same(copy.deepcopy(denoiser)(y, 0.7), x_hat)
    same(pickle.loads(pickle.dumps(denoiser))(y, 0.7), x_hat)
    moved = copy.deepcopy(denoiser).double().float()
    for dtype in (torch.float32, torch.float64):
        same(moved(y.to(dtype), 0.7), x_hat.to(dtype), 1e-3)
    other = DENOISERS[name](1)
    other(y, 0.7)  # so that it has kept fits, which are no longer right
    other.load_state_dict(denoiser.state_dict())
    same(other(y, 0.7), x_hat)
    fresh = DENOISERS[name](0)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda sigma: fresh(y, sigma), [0.7] * 4):
            same(found, x_hat)


@every
def test_everything_follows_y_even_to_a_device_without_float64(name, monkeypatch):
    denoiser, y = copy.deepcopy(built(name)).float(), noisy(name)
    x_hat = denoiser(y, LEVELS).detach()  # whose graph would hold the weights where they are
    monkeypatch.setattr(checks, "WITHOUT_DOUBLE", {DEVICE.type})
    with Machine(double=False):
        found = denoiser.to(DEVICE)(y.to(DEVICE), LEVELS.to(DEVICE))
        assert found.device == DEVICE
        same(found.cpu().detach(), x_hat, 1e-3)


@every
def test_vmap(name):
    denoiser, y = copy.deepcopy(built(name)).double(), noisy(name, torch.float64)

    def over_y():
        return vmap(lambda q: denoiser(q[None], 0.7)[0])(y)

    def over_batches():
        return vmap(lambda q: denoiser(q, LEVELS))(torch.stack([y, 2 * y]))[1]

    def over_both():
        return vmap(lambda q, s: denoiser(q[None], s)[0])(y, LEVELS)

    def over_sigma():
        return vmap(lambda s: denoiser(y, s))(LEVELS)[:, 0]

    first = torch.cat([denoiser(y[:1], s) for s in LEVELS.tolist()])
    want = {over_y: denoiser(y, 0.7), over_batches: denoiser(2 * y, LEVELS)}
    want |= {over_both: denoiser(y, LEVELS), over_sigma: first}
    for over, x_hat in want.items():
        if name in NUMPY or name in FITTED and over in (over_both, over_sigma):
            with pytest.raises(ValueError, match=f"{IN_NUMPY}|{FITTED_ANEW}"):
                over()
        else:
            same(over(), x_hat, 1e-8)


@every
def test_derivatives(name):
    denoiser, y = copy.deepcopy(built(name)).double(), noisy(name, torch.float64)[:1]
    v, w = noise(2, *y.shape, seed=9, dtype=torch.float64)

    def estimate(q):
        return denoiser(q, 0.7)

    def vectorised(strategy):
        return jacobian(estimate, y, vectorize=True, strategy=strategy)

    def along(matrix):
        return (matrix.reshape(y.numel(), -1) @ v.flatten()).view_as(v)

    def second():  # of <w, D> along v, backwards twice
        q = y.clone().requires_grad_()
        (slope,) = torch.autograd.grad((estimate(q) * w).sum(), q, create_graph=True)
        if not slope.requires_grad:  # linear
            return torch.zeros_like(y)
        return torch.autograd.grad((slope * v).sum(), q, materialize_grads=True)[0]

    ways = [
        lambda: jvp(estimate, (y,), (v,))[1],
        lambda: along(jacrev(estimate)(y)),
        lambda: along(jacobian(estimate, y)),
        lambda: along(vectorised("reverse-mode")),
        lambda: along(vectorised("forward-mode")),
    ]
    sigma = torch.tensor(0.7, dtype=torch.float64)

    def over_sigma():
        return jvp(lambda s: denoiser(y, s), (sigma,), (torch.ones_like(sigma),))[1]

    if name in NUMPY:
        for way in (*ways, second, lambda: estimate(y.clone().requires_grad_())):
            with pytest.raises(ValueError, match=IN_NUMPY):
                way()
    else:
        step = 1e-5
        quotient = (estimate(y + step * v) - estimate(y - step * v)) / (2 * step)
        for way in ways:
            same(way().detach(), quotient.detach(), 1e-5)
        # forwards over backwards
        mixed = jvp(grad(lambda q: (estimate(q) * w).sum()), (y,), (v,))[1]
        same(second(), mixed.detach(), 1e-8)
    if name in NUMPY | FITTED:
        for way in (over_sigma, lambda: denoiser(y, sigma.clone().requires_grad_())):
            with pytest.raises(ValueError, match=f"{IN_NUMPY}|{FITTED_ANEW}"):
                way()
    else:
        change = (denoiser(y, 0.7 + step) - denoiser(y, 0.7 - step)) / (2 * step)
        same(over_sigma().detach(), change.detach(), 1e-5)


# all networks; what has no parameters goes one and the same way, and is left uncompiled
COMPILED = {
    *(set(NETWORKS) - {"PerLevel"}),
    *("unet, told", "mlp", "mlp per level", "dilated", "posterior mean", "local", "polynomial"),
    *({"corrected", "total variation"} & set(DENOISERS)),
}


@pytest.mark.parametrize("name", sorted(COMPILED))
def test_compiled_is_the_same(name):
    torch.compiler.reset()
    denoiser, y = built(name), noisy(name)
    same(torch.compile(denoiser, backend="eager")(y, LEVELS), denoiser(y, LEVELS))


def test_a_score_in_half_precision_divides_by_no_zero():
    """The square of 1e-4 is 0 in float16, and sigma itself has three digits there."""
    denoiser, y = built("linear"), noisy("linear", torch.float16)
    same(d.score(denoiser, y, 0.02).float(), d.score(denoiser, y.float(), 0.02), 2e-3)
    assert d.score(denoiser, images(0).mean(0)[None].half(), 1e-4).isfinite().all()


def test_no_path_takes_the_wrong_neighbour():
    """Two of 52 images 1e-3 apart, y near their middle, sigma 3e-4: float32 logits cannot tell them
    apart."""
    g = torch.Generator().manual_seed(0)
    points = torch.rand(52, 20, 20, generator=g)
    points[1] = points[0] + 1e-3 * torch.randn(20, 20, generator=g) / 20
    y = ((points[0] + points[1]) / 2 + 3e-4 * torch.randn(20, 20, generator=g))[None]
    denoiser = d.PosteriorMean(points)
    exact = d.PosteriorMean(points.double())(y.double(), 3e-4)
    sigma = torch.tensor(3e-4)
    paths = {
        "eager": denoiser,
        "compiled": torch.compile(denoiser, backend="eager"),
        "exported": torch.export.export(denoiser, (y, sigma)).module(),
        "vmap": lambda q, s: vmap(lambda r: denoiser(r[None], s)[0])(q),
        "jvp": lambda q, s: jvp(lambda r: denoiser(r, s), (q,), (q,))[0],
    }
    for name, path in paths.items():
        assert (path(y, sigma).double() - exact).abs().max() < 1e-6, name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_class_of_networks_is_trained_kept_and_shown_in_a_page(name, tmp_path, monkeypatch):
    """What the table of networks asks of a class: found by its name, trained, kept with its card,
    its Jacobian, its graph."""
    monkeypatch.setenv(models.MODELS, str(tmp_path))
    network, event = DENOISERS[name](0), built(name).event_shape or EVENTS.get(name, GRAY)
    x = noise(4, *event).sigmoid()
    assert models.classes()[name] is type(network)
    recipe = Recipe(steps=2, batch=2, noise=("levels", 0.1, 1.0, 9.0), loss="sum")
    *_, trained = train(network, x, recipe)
    models.save("mine", trained.denoiser, {}, x)
    again, y = models.load("mine"), noisy(name)
    same(again(y, 1.0).detach(), network.eval()(y, 1.0).detach(), 1e-2)  # half precision
    vector = noise(1, *event, seed=1)
    pushed = Jacobian(again, y[:1], 1.0).matvec(vector)
    same(pushed, jvp(lambda q: again(q, 1.0), (y[:1],), (vector,))[1].detach(), 1e-3)
    if name == "PerLevel":
        with pytest.raises(ValueError, match="PerLevel cannot be exported as a graph: export one"):
            export(again, event=event)
    else:
        assert export(again, event=event)  # which compares it with torch
