"""Everything follows y: on a pretend device, which refuses to mix with the CPU, and gives what the
CPU gives."""

import copy

import pytest
import torch
from nets import noise
from pretend import DEVICE, Dice, Machine
from test_contract import DENOISERS, noisy, wings

from helpers import (
    checks,
    data,
    density,
    devices,
    jacobian,
    lab,
    metrics,
    realism,
    sampling,
    training,
)
from helpers import denoisers as d
from helpers.denoisers import (
    CNN,
    MLP,
    GaussianMixture,
    PerLevelMLP,
    Polynomial,
    PosteriorMean,
    RandomFeatures,
)
from helpers.experiments import ledger
from helpers.kernels.masked import wiener_masks

POINTS = data.moons().sample(20)
START = sampling.initial_noise(6, 2, sigma=2.0)
LEVELS = sampling.edm(4, 0.1, 2.0)
SAMPLERS = {
    "euler": lambda D, y: sampling.euler(D, y, LEVELS),
    "heun": lambda D, y: sampling.heun(D, y, LEVELS),
    "reverse_sde": lambda D, y: sampling.reverse_sde(D, y, LEVELS),
    "langevin": lambda D, y: sampling.langevin(D, y, LEVELS, corrections=2),
    "stochastic_ascent": lambda D, y: sampling.stochastic_ascent(D, y, 2.0, sigma_stop=0.5, h=0.2),
    "gradient_estimation": lambda D, y: sampling.gradient_estimation(D, y, LEVELS),
}


@pytest.fixture
def machine():
    with Machine() as machine:
        yield machine


def same(there, here):
    """There it lies on the device, and it is what the CPU gives but for the order of sums."""
    assert there.device == DEVICE
    torch.testing.assert_close(
        there.cpu(), here, rtol=1e-6, atol=1e-9 if here.dtype == torch.float64 else 1e-5
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(machine, name):
    run = SAMPLERS[name]
    there, here = (
        run(PosteriorMean(x), y)
        for x, y in ((POINTS.to(DEVICE), START.to(DEVICE)), (POINTS, START))
    )
    same(sampling.trajectory(START.to(DEVICE), there), sampling.trajectory(START, here))


def test_the_plane_stays_where_it_was_given(machine):
    x, y = POINTS.to(DEVICE), START.to(DEVICE)
    same(GaussianMixture(x, 0.2).sample(5), GaussianMixture(POINTS, 0.2).sample(5))
    same(
        GaussianMixture(x, 0.2).log_prob(y, 0.5),
        GaussianMixture(POINTS, 0.2).log_prob(y.cpu(), 0.5),
    )
    same(
        GaussianMixture(POINTS, 0.2).log_prob(y, 0.5),
        GaussianMixture(POINTS, 0.2).log_prob(y.cpu(), 0.5),
    )
    same(data.moons().to(DEVICE).projected(torch.eye(2)[:, :1], torch.ones(2)).sample(3),
         data.moons().projected(torch.eye(2)[:, :1], torch.ones(2)).sample(3))  # fmt: skip
    for make in (
        lambda x: Polynomial(x, 3),
        lambda x: Polynomial(x, 2, gradient=True),
        lambda x: RandomFeatures(x, 8),
    ):
        same(make(x)(y, 0.7), make(POINTS)(y.cpu(), 0.7))
        same(make(POINTS)(y, 0.7), make(POINTS)(y.cpu(), 0.7))
    fit = Polynomial(x, 3, gradient=True)
    same(fit.potential(y, 0.7), Polynomial(POINTS, 3, gradient=True).potential(y.cpu(), 0.7))
    assert fit.normalisable(0.7) == Polynomial(POINTS, 3, gradient=True).normalisable(0.7)


def test_densities(machine):
    grid = density.grid(3.0, 5)
    there = grid.to(DEVICE)
    options = {"sigma_min": 0.1, "sigma_max": 10.0, "steps": 5}
    log_p, log_q = (density.generated_log_density(PosteriorMean(x), g.points, **options)
                    for x, g in ((POINTS, grid), (POINTS.to(DEVICE), there)))  # fmt: skip
    same(log_q, log_p)
    assert density.total_variation(log_q, log_p.to(DEVICE), grid.cell) < 1e-9
    assert abs(density.kullback_leibler(log_q, log_p.to(DEVICE), grid.cell)) < 1e-9
    assert density.mass(log_q, grid.cell) == pytest.approx(density.mass(log_p, grid.cell))


FITS = {
    "convolution": lambda x: d.LinearConvolution.from_points(x, 3),
    "pooled": lambda x: d.PooledConvolution.from_points(x, 2),
    "linear": lambda x: d.LinearDenoiser.from_points(x, 3),
    "local": lambda x: d.LocalMean(x, 3),
    "masks": lambda x: d.MaskedMean(x, wiener_masks(torch.cov(x.cpu().flatten(1).T), 0.5)),
    "smoothed": lambda x: d.PosteriorMean(x, 0.2),
    "projected": lambda x: d.ProjectedDenoiser(x, 2),
    "two images": lambda x: d.TwoImages(x[:2], 3),
    **(wings.FITS if wings else {}),
}


@pytest.mark.parametrize("name", FITS)
def test_what_is_fitted_to_points_stays_with_them(machine, name):
    x = noise(6, 6, 6, dtype=torch.float64).sigmoid()
    y = noise(3, 6, 6, seed=1, dtype=torch.float64)
    there, here = FITS[name](x.to(DEVICE)), FITS[name](x)
    same(there(y.to(DEVICE), 0.7), here(y, 0.7))
    if name == "convolution":
        same(there.generated_spectrum(), here.generated_spectrum())
    if name == "pooled":
        same(there.generated_covariance(nodes=3), here.generated_covariance(nodes=3))


MEASURES = {
    "sliced_w2": metrics.sliced_w2,
    "exact_w2": metrics.exact_w2,
    "share_of_copies": metrics.share_of_copies,
    "psnr": metrics.psnr,
    "diverged": lambda x, y: metrics.diverged(x),
    "kurtosis": lambda x, y: metrics.kurtosis(x[:, :1, :1]),
    "nearest": lambda x, y: metrics.nearest(x, y)[0],
    "pearson": metrics.pearson,
    "similarity": metrics.similarity,
    "determination": metrics.determination,
    "patch_sources": lambda x, y: metrics.patch_sources(x, y, 2)[1],
    "frechet": lambda x, y: realism.frechet(x.flatten(1)[:, :3], y.flatten(1)[:, :3]),
    "kid": lambda x, y: realism.kid(x.flatten(1)[:, :3], y.flatten(1)[:, :3]),
    "radial_spectrum": lambda x, y: realism.radial_spectrum(x),
    "spectral_distance": realism.spectral_distance,
    "sharpness": lambda x, y: realism.sharpness(x),
}


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", MEASURES)
def test_measures(monkeypatch, name, double):
    x, y = (torch.rand(8, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(2))
    here = MEASURES[name](x, y)
    monkeypatch.setattr(checks, "WITHOUT_DOUBLE", set() if double else {"pretend"})
    with Machine(double):
        there = MEASURES[name](x.to(DEVICE), y.to(DEVICE))
        there = there.cpu() if isinstance(there, torch.Tensor) else there
    torch.testing.assert_close(
        torch.as_tensor(there).to(torch.as_tensor(here)),
        torch.as_tensor(here),
        rtol=1e-4,
        atol=1e-5,
    )


def test_jacobians(machine):
    y = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    for method in (jacobian.FROZEN, jacobian.REFERENCE):
        here = jacobian.Jacobian(CNN(depth=3, channels=4).eval(), y, 0.3, method)
        values, vectors = here.matrix, here.adjoint(y)
        largest = jacobian.eigen(here, 3, 10).values
        there = jacobian.Jacobian(
            CNN(depth=3, channels=4).eval().to(DEVICE), y.to(DEVICE), 0.3, method
        )
        same(there.matrix, values)
        same(there.adjoint(y.to(DEVICE)), vectors)
        same(jacobian.eigen(there, 3, 10).values, largest)
        assert jacobian.asymmetry(there) == pytest.approx(
            float((values - values.T).norm() / values.norm()), rel=1e-4
        )
        assert jacobian.svd(there)[1].device == DEVICE


def test_training(machine, monkeypatch):
    plain = torch.Generator
    monkeypatch.setattr(
        torch, "Generator", lambda device="cpu": Dice() if "pretend" in str(device) else plain()
    )
    recipe = training.Recipe(steps=3, batch=8, ema=0.9, clip=1.0, flip=False)
    network = MLP(8).to(DEVICE)
    losses = training.run(training.train(network, POINTS, recipe))
    assert len(losses) == 3 and {p.device for p in network.parameters()} == {DEVICE}
    levels = PerLevelMLP(torch.tensor([2.0, 0.5]), width=8).to(DEVICE)
    training.run(
        training.train_levels(levels, POINTS.to(DEVICE), training.Recipe(steps=3, batch=8))
    )
    module, x = torch.nn.Linear(2, 1).to(DEVICE), POINTS.float().to(DEVICE)

    def loss(step, g):
        return module(x[torch.randint(len(x), (8,), generator=g, device=g.device)]).square().mean()

    training.run(training.fit(module, loss, recipe, x))
    assert {p.device for p in (*levels.parameters(), *module.parameters())} == {DEVICE}


@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers(machine, name):
    here, y = DENOISERS[name](0), noisy(name, torch.float64)
    x_hat = here(y, 0.7).detach()
    same(copy.deepcopy(here).to(DEVICE)(y.to(DEVICE), 0.7).detach(), x_hat)


def test_a_seed_is_the_same_noise_there(machine):
    for law in (data.moons(), data.checkerboard(), data.pinwheel()):
        same(law.sample(9, seed=3).to(DEVICE), law.sample(9, seed=3))
    same(
        GaussianMixture(POINTS.to(DEVICE)).sample(9, seed=3),
        GaussianMixture(POINTS).sample(9, seed=3),
    )


def test_a_lab_takes_what_lies_elsewhere(machine):
    law, network = data.moons().to(DEVICE), MLP(8).to(DEVICE)
    families = [
        lab.Family("network", lambda points, _: network),
        lab.Family("copier", lambda x, _: PosteriorMean(x)),
    ]
    made = lab.Lab("away", {"moons": law}, families, [8], "caption", "alt", right=("copier", ""))
    for side in ("left", "right"):
        assert made.sample(made.start | {"particles": "250"}, side).device == torch.device("cpu")
    assert law.means.device == next(network.parameters()).device == DEVICE  # it works on copies


# What a chapter chooses ---------------------------------------------------------------------------


def test_the_best_device_that_is_there_is_chosen(monkeypatch):
    monkeypatch.delenv(devices.BEST, raising=False)
    there = {"cuda": False, "mps": True, "cpu": True}
    monkeypatch.setattr(devices, "KINDS", {kind: lambda kind=kind: there[kind] for kind in there})
    assert devices.chosen("quick") == torch.device("mps")
    # Apple's GPUs have no float64
    assert devices.chosen("full", double=True) == torch.device("cpu")
    # a cell that runs twice
    assert devices.chosen("quick", torch.device("cpu")) == torch.device("cpu")
    for device, double in (("cuda", False), ("mps", True), ("gpu", False)):
        with pytest.raises(ValueError, match=f"device is '{device}'.*auto"):
            devices.chosen("quick", device, double)
    there["cuda"] = True
    assert devices.chosen("quick", double=True) == torch.device("cuda")
    monkeypatch.setenv(devices.BEST, "cpu")  # as the pipeline does for outputs that are compared
    assert devices.chosen("quick") == torch.device("cpu") and devices.chosen(
        "quick", "cuda"
    ) == torch.device("cuda")
    with pytest.raises(ValueError, match="profile is 'Full': choose quick or full"):
        devices.chosen("Full", "cpu")


def test_a_claim_is_recorded_on_the_device_of_its_tensors(monkeypatch, tmp_path):
    monkeypatch.setenv("CREATIVE_DENOISER_RESULTS", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "a GPU")
    for device, name in (("cpu", "CPU"), ("cuda", "a GPU"), ("mps", "Apple GPU")):
        ledger.record("01_x", [ledger.Claim("a", "b", (0, 1), 0.5)], "quick", torch.device(device))
        assert ledger.read_all()["01_x"][0].made == f"quick, {name}"
