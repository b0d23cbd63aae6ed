"""Plates: the residual against scikit-fem and a known solution, slopes, the optimiser, and what the
measures of a design can tell."""

import math

import pytest
import torch
from nets import noise
from skfem import Basis, BilinearForm, ElementQuad0, ElementQuad1, ElementVector, MeshQuad
from skfem.helpers import ddot, sym_grad, trace

from helpers import recorded
from helpers.systems.bastek.plates import POISSON, VOID, Cases, Plate, modulus
from helpers.systems.bastek.structures import (
    Designer,
    Weights,
    black_and_white,
    carries,
    channels,
    conditions,
    fields,
    generated,
    judged,
    matching,
    nearest,
    observations,
    shipped,
)

PLATE = Plate(10)
SIDE = 9


def designs(n=3, seed=0):
    """Densities from a tenth on, float64: nothing that optimises anything."""
    return 0.1 + 0.9 * noise(n, SIDE, SIDE, seed=seed, dtype=torch.float64).sigmoid()


def pulled():
    """Drawn out along x, a force of 1 for each unit of the right side; free to grow thin."""
    f, free = torch.zeros(2, 1, 2, SIDE + 1, SIDE + 1).double()
    free[:] = 1
    free[0, 0, :, 0] = free[0, 1, 0, 0] = 0
    f[0, 0, :, -1] = 1
    f[0, 0, [0, -1], -1] = 0.5
    return Cases(f, free, torch.ones(1), f)


PULLED = pulled()


def by_scikit_fem(rho):
    """K(rho) of one design by scikit-fem, on its own mesh and in its own numbering, as a map of u (2,
    nodes, nodes)."""
    line = torch.arange(SIDE + 1).double().numpy()
    mesh = MeshQuad.init_tensor(line, line)
    basis = Basis(mesh, ElementVector(ElementQuad1()))
    density = basis.with_element(ElementQuad0())
    x, y = mesh.p[:, mesh.t].mean(1)
    E = modulus(rho)[y.astype(int), x.astype(int)].numpy()

    @BilinearForm
    def weak(u, v, w):  # plane stress, written out
        e, d = sym_grad(u), sym_grad(v)
        law = POISSON * trace(e) * trace(d) + (1 - POISSON) * ddot(e, d)
        return w["E"] / (1 - POISSON**2) * law

    K = weak.assemble(basis, E=density.interpolate(E))
    column, row = mesh.p.astype(int)

    def forces(u):
        flat = torch.zeros(basis.N).double().numpy()
        for c in (0, 1):
            flat[basis.nodal_dofs[c]] = u[c].numpy()[row, column]
        out = torch.zeros_like(u)
        for c in (0, 1):
            out[c, row, column] = torch.from_numpy((K @ flat)[basis.nodal_dofs[c]])
        return out

    return forces


# Equilibrium --------------------------------------------------------------------------------------


def test_forces_are_those_of_scikit_fem():
    rho, u = designs(1), noise(1, 2, SIDE + 1, SIDE + 1, dtype=torch.float64)
    want = by_scikit_fem(rho[0])(u[0])
    torch.testing.assert_close(PLATE.forces(rho, u)[0], want, rtol=0, atol=1e-9)


def test_solutions_are_in_equilibrium_and_stay_where_they_are_held():
    cases, rho = PLATE.cases(6, seed=1), designs(6)
    u = PLATE.solve(rho, cases)
    assert float(PLATE.residual(rho, u, cases).abs().max()) < 1e-9
    assert float((u * (1 - cases.free)).abs().max()) == 0 < float(u.abs().min(0).values.max())


def test_patch_test():
    """A plate drawn out along x: its strain is the same everywhere, 1 along and -.3 across."""
    u = PLATE.solve(torch.ones(1, SIDE, SIDE), PULLED)[0]
    at = torch.arange(SIDE + 1).double()
    torch.testing.assert_close(u[0], at.expand_as(u[0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(u[1], -POISSON * at[:, None].expand_as(u[1]), rtol=0, atol=1e-9)


def test_cases_are_as_described():
    cases = PLATE.cases(60, seed=3)
    torch.testing.assert_close(cases.f.flatten(1).norm(dim=1), torch.ones(60).double())
    at = cases.f.norm(dim=1) > 0
    assert (at.sum((1, 2)) == 1).all() and not at[:, 1:-1, 1:-1].any()
    assert cases.volume.min() >= 0.3 and cases.volume.max() <= 0.5
    for one, free in zip(at, cases.free[:, 0], strict=True):
        apart = (one.nonzero() - (free == 0).nonzero()).abs().amax(1)
        assert int(apart.min()) > (SIDE + 1) // 4
    torch.testing.assert_close(PLATE.cases(60, seed=3).solid, cases.solid)
    assert not torch.equal(PLATE.cases(60, seed=4).f, cases.f)
    assert torch.equal(cases[torch.tensor([5])].f[0], cases.f[5])
    own = PLATE.tasks([2], [(0, 4)], [math.pi / 2], [0.4])
    assert own.f[0, 1, 0, 4] == own.f.abs().sum().round(decimals=9) == 1  # down
    assert own.free[0, 0].argwhere().tolist() != [] and not own.free[0, :, -1, [0, -1]].any()


@pytest.mark.parametrize("wrong", [lambda: Plate(7), lambda: PLATE.tasks([0], [(3, 0)], [0], [0.4]),
                                   lambda: PLATE.solve(designs(2), PLATE.cases(3)),
                                   lambda: PLATE.solve(torch.ones(3, 8, 8), PLATE.cases(3))])  # fmt: skip
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="take at least 8|load another|pass \\(batch, 9, 9\\)"):
        wrong()


# Statements ---------------------------------------------------------------------------------------


@pytest.mark.theorem("prop-compliance")
def test_compliance_is_the_energy_and_a_maximum_and_its_slope_that_of_differences():
    cases, rho = PLATE.cases(4, seed=2), designs(4)
    u, c = PLATE.solve(rho, cases), PLATE.compliance(rho, cases)
    torch.testing.assert_close((u * PLATE.forces(rho, u)).sum((1, 2, 3)), c)
    other = u + 0.1 * cases.free * noise(*u.shape, dtype=torch.float64)
    below = 2 * (cases.f * other).sum((1, 2, 3)) - (other * PLATE.forces(rho, other)).sum((1, 2, 3))
    assert (below < c).all()
    way, h = noise(*rho.shape, seed=5, dtype=torch.float64), 1e-5
    slope = -(1 - VOID) * 3 * rho**2 * PLATE.energy(u)
    change = PLATE.compliance(rho + h * way, cases) - PLATE.compliance(rho - h * way, cases)
    torch.testing.assert_close(change / (2 * h), (slope * way).sum((1, 2)), rtol=1e-6, atol=1e-6)


@pytest.mark.theorem("prop-compliance")
def test_compliance_is_convex_in_the_modulus_and_not_in_the_density():
    cases = PLATE.cases(40, seed=2)

    def c(E):  # the density with that modulus
        return PLATE.compliance(((E - VOID) / (1 - VOID)) ** (1 / 3), cases)

    a, b = modulus(designs(40)), modulus(designs(40, seed=1))
    assert (c((a + b) / 2) < (c(a) + c(b)) / 2).all()
    even, odd = torch.zeros(2, 1, SIDE, SIDE).double()
    even[:, ::2] = odd[:, 1::2] = odd[:, [0, -1]] = 1  # bars along the pull
    bars = [float(PLATE.compliance(rho, PULLED)) for rho in (even, odd)]
    assert float(PLATE.compliance((even + odd) / 2, PULLED)) > 1.2 * max(bars)


@pytest.mark.theorem("prop-plate-blind")
def test_what_the_residual_cannot_see():
    cases, rho = PLATE.cases(4, seed=2), designs(4)
    u = PLATE.solve(rho, cases)
    rigid, changed = u.clone(), rho.clone()
    x = torch.arange(4.0).double()
    rigid[:, 0, 3:7, 3:7] = 2 - 0.3 * x[:, None]  # a turn and a shift of nine elements
    rigid[:, 1, 3:7, 3:7] = 1 + 0.3 * x
    changed[:, 3:6, 3:6] = 0.9 * noise(4, 3, 3, dtype=torch.float64).sigmoid()
    seen = [PLATE.residual(r, rigid, cases) for r in (rho, changed)]
    torch.testing.assert_close(*seen, rtol=0, atol=1e-9)
    assert (
        float((PLATE.residual(rho, u, cases) - PLATE.residual(changed, u, cases)).abs().max())
        > 0.01
    )
    still = PLATE.residual(rho, 0 * u, cases)
    assert torch.equal(still, -cases.f * cases.free)


@pytest.mark.theorem("prop-objective")
def test_slopes_of_the_two_objectives():
    cases, rho = PLATE.cases(3, seed=2), designs(3)
    x = channels(rho, PLATE.solve(rho, cases), cases)
    slope = (
        -(1 - VOID)
        * 3
        * rho**2
        * PLATE.energy(fields(x, cases)[1])
        / cases.compliance[:, None, None]
    )
    for name, sign in (("work", -1), ("adjoint", 1)):
        z = x.clone().requires_grad_()
        (seen,) = observations(PLATE, cases, Weights(compliance=1.0, objective=name))
        (g,) = torch.autograd.grad(3 * seen(None, z, torch.ones(3).double(), z), z)
        torch.testing.assert_close(2 * g[:, 2, :-1, :-1], sign * slope)
        moved = g[:, :2] * cases.free  # slope in u / c_0: of u.K u it is 2 K u = 2 f
        want = 2 * cases.f * cases.free if name == "work" else 0 * moved
        torch.testing.assert_close(moved, want, rtol=0, atol=1e-9)


# The optimiser ------------------------------------------------------------------------------------


def test_the_optimiser_keeps_the_volume_and_lowers_the_compliance():
    cases = PLATE.cases(8, seed=4)
    gray = cases.volume[:, None, None].expand(-1, SIDE, SIDE)
    costs = [PLATE.compliance(gray, cases)]
    for steps in (3, 10, 30):
        rho = PLATE.simp(cases, steps)
        assert float((rho.mean((1, 2)) - cases.volume).abs().max()) < 1e-9
        assert 0 <= float(rho.min()) and float(rho.max()) <= 1
        costs.append(PLATE.compliance(rho, cases))
    c = torch.stack(costs)
    assert (c[1:].median(1).values < c[:-1].median(1).values).all()
    assert (c[-1] < c[0] / 3).all() and (c[-1] > cases.compliance).all()


def test_a_good_start_saves_steps():
    cases = PLATE.cases(8, seed=4)
    done = PLATE.simp(cases, 20)
    late, early = (PLATE.compliance(PLATE.simp(cases, 2, start), cases) for start in (done, None))
    assert (late < early).all() and (late < 1.3 * PLATE.compliance(done, cases)).all()


def test_no_other_design_of_the_volume_is_better():
    """Designs of other tasks, brought to the volume, are worse; so is the own design shuffled."""
    cases = PLATE.cases(12, seed=5)
    rho = PLATE.simp(cases, 30)
    best = PLATE.compliance(black_and_white(rho, cases.volume), cases)
    assert (
        PLATE.compliance(black_and_white(rho.roll(1, 0), cases.volume), cases) > best
    ).float().mean() > 0.8


# The network and its loss -------------------------------------------------------------------------


def test_fields_are_the_inverse_of_channels():
    cases, rho = PLATE.cases(3), designs(3)
    u = PLATE.solve(rho, cases)
    back = fields(channels(rho, u, cases), cases)
    torch.testing.assert_close(back[0], rho)
    torch.testing.assert_close(back[1], u)
    assert conditions(PLATE, cases).shape == (3, Designer.told, SIDE + 1, SIDE + 1)


def test_a_designer_begins_as_the_gaussian_denoiser_and_then_hears_its_conditions():
    plate = Plate(8)
    told, y = conditions(plate, plate.cases(2)), noise(2, 3, 8, 8)
    net = Designer(4)
    share = net.data_std**2 / (net.data_std**2 + 0.25)
    torch.testing.assert_close(net(y, torch.tensor(0.5), told), share * y)
    with torch.no_grad():
        net.unet.decoder[0][-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    D = net.given(told)
    torch.testing.assert_close(D(y, 0.5), net(y, torch.full((2,), 0.5), told))
    assert float((D(y, 0.5) - net.given(told.flip(0))(y, 0.5)).detach().abs().max()) > 1e-3


def test_designs_are_drawn_from_the_seed_for_their_cases():
    plate = Plate(8)
    cases, net = plate.cases(2), Designer(4)
    with torch.no_grad():
        net.unet.decoder[0][-1].weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    rho, u = generated(net, plate, cases, steps=3, seed=1)
    assert rho.shape == (2, 7, 7) and u.shape == (2, 2, 8, 8)
    again = generated(net, plate, cases, steps=3, seed=1)
    assert torch.equal(again[0], rho) and torch.equal(again[1], u)
    assert not torch.equal(generated(net, plate, cases, steps=3, seed=2)[0], rho)
    other = plate.tasks([2, 2], [(0, 3), (0, 3)], [0.0, 0.0], [0.4, 0.4])
    assert not torch.equal(generated(net, plate, other, steps=3, seed=1)[0], rho)


def test_what_ships_is_what_was_recorded(monkeypatch):
    """It designs better than chance: for a task that it was not trained on, the load is carried."""
    case = Plate().tasks([0], [(23, 23)], [math.pi / 2], [0.4])
    rho, _ = generated(shipped(), Plate(), case, steps=20)
    reached, _ = carries(black_and_white(rho, case.volume), case)
    assert reached.all()
    record = recorded.load("structures")
    record["ships"]["sha256"] = "0"
    monkeypatch.setattr(recorded, "load", lambda name: record)
    with pytest.raises(ValueError, match="reinstall"):
        shipped()


def test_seeds_of_the_record_are_trainings_of_their_own():
    """Each with its own designs for all held-out tasks, from a beginning of its own."""
    record = recorded.load("structures")
    found, tasks = record["networks"], record["data"]["held out"]
    assert len({str(looks) for looks in found["first"]}) == found["seeds"] > 1
    for name, numbers in found["held out"].items():
        seeds = numbers["compliance"]
        assert len(seeds) == len(found["curves"][name]) <= found["seeds"]
        assert {len(seed) for seed in seeds} == {tasks}
        assert len({str(seed) for seed in seeds}) == len(seeds)


def test_the_loss_is_the_papers():
    cases, rho = PLATE.cases(2), designs(2)
    x = channels(rho, PLATE.solve(rho, cases), cases)
    sigma = torch.tensor([0.1, 2.0]).double()
    weights = Weights(1e-3, 2.0, 0.5)
    seen = observations(PLATE, cases._replace(volume=cases.volume - 0.4), weights)

    class Off(torch.nn.Module):
        def forward(self, y, sigma, told):
            return x + 0.1

    got = matching(Off(), x, sigma, noise(*x.shape), torch.zeros(1), seen)
    parts = [one(None, x, sigma, x + 0.1) for one in seen]
    assert float(got) == pytest.approx(0.01 * (5 + 0.25) / 2 + float(sum(parts)))
    assert len(parts) == 3 and all(float(p) > 0 for p in parts)
    on = observations(PLATE, cases._replace(volume=rho.mean((1, 2)) + 0.1), weights)[:2]
    assert [float(one(None, x, sigma, x)) for one in on] == pytest.approx([0, 0], abs=1e-12)
    with pytest.raises(ValueError, match="choose one of work, adjoint"):
        observations(PLATE, cases, Weights(objective="best"))


# Measures -----------------------------------------------------------------------------------------


def test_black_and_white_keeps_the_volume_and_the_order():
    rho, volume = designs(3), torch.tensor([0.3, 0.4, 0.5])
    cut = black_and_white(rho, volume)
    assert torch.equal(cut.sum((1, 2)), (volume * SIDE**2).round().double())
    assert all(
        float(r[c == 1].min()) > float(r[c == 0].max()) for r, c in zip(rho, cut, strict=True)
    )


def test_loose_parts_and_broken_paths_are_seen():
    f, free = torch.zeros(2, 1, 2, SIDE + 1, SIDE + 1).double()
    f[:, 0, 4, -1], free[:] = 1, 1
    free[:, :, :, 0] = 0
    cases = Cases(f, free, torch.ones(1), f)
    bar, loose, gap, corner = torch.zeros(4, 1, SIDE, SIDE)
    bar[0, 4] = 1
    loose[0, 4] = loose[0, 7, 4:6] = 1
    gap[0, 4, [0, 1, 2, 4, 5, 6, 7, 8]] = 1
    corner[0, 4, :4] = corner[0, 5, 4:] = 1  # which meet in a point only, and not at the load
    seen = [tuple(int(v) for v in carries(one, cases)) for one in (bar, loose, gap, corner)]
    assert seen == [(1, 0), (1, 1), (0, 1), (0, 1)]


def test_a_design_is_judged_against_the_optimisers():
    cases = PLATE.cases(4, seed=6)
    best = PLATE.simp(cases, 20)
    u = PLATE.solve(best, cases)
    own = judged(PLATE, best, cases, best, u)
    assert max(float(v.abs().max()) for k, v in own.items() if k not in ("loose", "broken")) < 1e-9
    gray = judged(PLATE, cases.volume[:, None, None].expand_as(best), cases, best, 0 * u)
    assert (gray["compliance"] > 2).all() and float(gray["volume"].max()) < 1e-9
    torch.testing.assert_close(gray["re-solve"], torch.ones(4).double())
    heavy = judged(PLATE, torch.ones_like(best), cases, best)
    assert (heavy["compliance"] < 0).all() and (heavy["volume"] > 1).all()
    light = judged(PLATE, best / 2, cases, best)
    assert (heavy["excess"] > 1).all() and light["excess"].tolist() == pytest.approx([-0.5] * 4)


def test_nearest_finds_the_copy():
    known = designs(5)
    apart, which = nearest(known[[3, 1]] + 0.01, known)
    assert which.tolist() == [3, 1] and apart.tolist() == pytest.approx([0.01, 0.01])
    assert math.isclose(float(nearest(known, known)[0].max()), 0, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"supports": [3]}, r"supports are \[3\]: take 0 to 2, of "),
        ({"supports": [-1]}, r"supports are \[-1\]: take 0 to 2"),
        ({"volumes": [35]}, r"volumes are \[35\]: a volume is a share of the plate"),
        (
            {"angles": [0.0, 1.0]},
            r"\[1, 1, 2, 1\] supports, nodes, angles, volumes: pass one of each",
        ),
    ],
)
def test_tasks_that_are_none(change, message):
    task = {"supports": [0], "nodes": [(23, 23)], "angles": [1.0], "volumes": [0.4]}
    with pytest.raises(ValueError, match=message):
        Plate().tasks(**{**task, **change})
