"""Local machines: C, torch and Triton against a float64 brute force; the papers' identities; bad
input."""

import importlib.util
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import noise

from helpers.denoisers.local import LocalMean, MaskedMean
from helpers.denoisers.posterior_mean import PosteriorMean
from helpers.kernels import local, masked
from helpers.kernels.local import local_mean
from helpers.kernels.masked import masked_mean, wiener_masks
from helpers.kernels.native import library

VARIANTS = [
    *itertools.product(["local", "equivariant"], ["zeros", "circular"]),
    *[("boundary", "zeros"), ("composite", "zeros")],
]
HAS_C = library("local") is not None
needs_c = pytest.mark.skipif(not HAS_C, reason="no C compiler")


def uniform(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.rand(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def brute_force(points, y, sigma, patch, machine="local", padding="zeros"):
    """One pixel at a time: list its dictionary from the definition, all in float64."""
    x, z = (t.double() if t.ndim == 4 else t.double()[:, None] for t in (points, y))
    (_, _, H, W), r = x.shape, patch // 2
    sigma = torch.as_tensor(sigma, dtype=y.dtype).double().expand(len(y))
    x_hat, counts = torch.zeros_like(z), torch.zeros(H, W, dtype=torch.float64)
    if machine == "composite":
        for i, j, b in itertools.product(range(H - patch + 1), range(W - patch + 1), range(len(z))):
            crop = (..., slice(i, i + patch), slice(j, j + patch))
            w = softmax(x[crop], z[b][crop], sigma[b])
            x_hat[b][crop] += torch.tensordot(w, x[crop], 1)
            counts[crop] += b == 0
        return (x_hat / counts).view(y.shape)
    window = list(itertools.product(range(-r, r + 1), repeat=2))
    inside = lambda i, j: 0 <= i < H and 0 <= j < W  # noqa: E731
    pixels = list(itertools.product(range(H), range(W)))

    def seen(i, j):  # the part of the window that exists
        return [(a, b) for a, b in window if padding == "circular" or inside(i + a, j + b)]

    for i, j in pixels:
        centres = {
            "local": lambda i=i, j=j: [(i, j)],
            "equivariant": lambda: [c for c in pixels if len(seen(*c)) == patch**2],
            "boundary": lambda i=i, j=j: [c for c in pixels if seen(*c) == seen(i, j)],
        }[machine]()
        at = torch.tensor(seen(i, j))
        where = (torch.tensor(centres)[:, None] + at) % torch.tensor([H, W])
        # (N * centres, C, seen)
        patches = x[:, :, where[..., 0], where[..., 1]].permute(0, 2, 1, 3).flatten(0, 1)
        values = torch.stack([x[:, :, a, b] for a, b in centres], 1).flatten(0, 1)
        here = (at + torch.tensor([i, j])) % torch.tensor([H, W])
        for b in range(len(z)):
            w = softmax(patches, z[b][:, here[:, 0], here[:, 1]], sigma[b])
            x_hat[b, :, i, j] = w @ values
    return x_hat.view(y.shape)


def softmax(patches, window, sigma):
    return torch.softmax(-(patches - window).square().flatten(1).sum(1) / (2 * sigma**2), 0)


def brute_force_masked(points, y, sigma, masks, composite):
    x, z, m = points.double().flatten(1), y.double().flatten(1), masks.double()
    x_hat, d = torch.zeros_like(z), x.shape[1]
    for b, p in itertools.product(range(len(z)), range(len(m))):
        w = torch.softmax(-(m[p] * (x - z[b]) ** 2).sum(1) / (2 * float(sigma) ** 2), 0)
        if composite:
            x_hat[b] += m[p] * (w @ x)
        else:
            x_hat[b, p :: len(m)] = w @ x[:, p :: len(m)]
    assert len(m) in (d, d // points.shape[1])
    return (x_hat / m.sum(0) if composite else x_hat).view(y.shape)


def error(got: torch.Tensor, want: torch.Tensor, points: torch.Tensor) -> float:
    """Largest error, in units of the range of the points."""
    return float((got.double() - want).abs().max() / (points.max() - points.min()).clamp(min=1e-30))


def implementations(machine: str) -> list[str]:
    return ["C", "torch"] if HAS_C and machine != "composite" else ["torch"]


@st.composite
def problems(draw):
    n, channels, b = (
        draw(st.integers(1, 6)),
        draw(st.sampled_from([1, 2, 3])),
        draw(st.integers(1, 3)),
    )
    H, W, seed = draw(st.integers(3, 8)), draw(st.integers(3, 8)), draw(st.integers(0, 10**6))
    machine, padding = draw(st.sampled_from(VARIANTS))
    odd = [
        p
        for p in range(1 if machine == "composite" else 3, min(H, W) + 1)
        if machine == "composite" or p % 2
    ]
    event = draw(st.sampled_from([(channels, H, W), (H, W)]))
    points = uniform(n, *event, seed=seed) + draw(st.sampled_from([0.0, 0.0, 100.0, -3.0]))
    if draw(st.booleans()):  # duplicates
        points = torch.cat([points, points[:1], points[:1]])
    sigma = draw(st.sampled_from([0.003, 0.03, 0.2, 1.0, 100.0]))
    y = points[torch.arange(b) % n] + draw(st.sampled_from([0.0, sigma, 0.3, 30.0])) * noise(
        b, *event, seed=seed + 1
    )
    return points, y, sigma, draw(st.sampled_from(odd)), machine, padding


@pytest.mark.theorem("prop-ls", "prop-els")
@settings(deadline=None, max_examples=150, derandomize=True)
@given(problems())
def test_brute_force(problem):
    points, y, sigma, patch, machine, padding = problem
    want = brute_force(*problem)
    for implementation in implementations(machine):
        assert error(local_mean(*problem, implementation=implementation), want, points) < 1e-5
    wide = local_mean(points.double(), y.double(), sigma, patch, machine, padding)
    want = brute_force(points.double(), y.double(), sigma, patch, machine, padding)
    assert error(wide, want, points) < 1e-9


@pytest.mark.theorem("prop-merge")
@needs_c
@pytest.mark.parametrize(("machine", "padding"), [v for v in VARIANTS if v[0] != "composite"])
def test_more_images_than_a_block(machine, padding):
    """Full and partly filled blocks of images, a level per row, windows as large as the image."""
    for n, patch in ((local.LANES, 3), (local.LANES + 1, 5), (3 * local.LANES - 1, 7)):
        points, y = uniform(n, 7, 9, seed=n), uniform(2, 7, 9, seed=n + 1)
        sigma = torch.tensor([0.1, 0.5])
        got = local_mean(points, y, sigma, patch, machine, padding, implementation="C")
        assert error(got, brute_force(points, y, sigma, patch, machine, padding), points) < 2e-6


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="no Triton")
@pytest.mark.parametrize(("machine", "padding"), [v for v in VARIANTS if v[0] != "composite"])
@pytest.mark.parametrize(("n", "channels", "patch", "offset"), [(9, 1, 3, 0.0), (2, 3, 5, 100.0)])
def test_triton(machine, padding, n, channels, patch, offset):
    """In Triton's interpreter, which conftest.py switches on without a GPU: several tiles and
    splits, a cut last one.

    Distances are float32 there, so the query is not far from the data in units of sigma.
    """
    points = (uniform(n, channels, 6, 8) + offset).to(
        "cuda" if torch.cuda.is_available() else "cpu"
    )
    y, sigma = (
        points[[0, 1]] + 0.1 * noise(2, channels, 6, 8).to(points),
        torch.tensor([0.1, 3.0]).to(points),
    )
    got = local_mean(points, y, sigma, patch, machine, padding, implementation="Triton").cpu()
    want = brute_force(points.cpu(), y.cpu(), sigma.cpu(), patch, machine, padding)
    assert error(got, want, points.cpu()) < 1e-5


# the papers' identities


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_as_large_as_the_image_is_the_posterior_mean(sigma):
    points, y = uniform(20, 2, 6, 6), uniform(3, 2, 6, 6, seed=1)
    want = PosteriorMean(points)(y, sigma)
    d = 2 * 6 * 6
    for got in (
        local_mean(points, y, sigma, 6, "composite"),
        masked_mean(points, y, sigma, torch.ones(d, d)),
        masked_mean(points, y, sigma, torch.ones(36, d)),
        masked_mean(points, y, sigma, torch.ones(d, d), composite=True),
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=2e-6)


def square_masks(H: int, W: int, channels: int, patch: int) -> torch.Tensor:
    """Row p shows the window around pixel p, all channels: (H W, channels H W)."""
    row, column = torch.arange(H).repeat_interleave(W), torch.arange(W).repeat(H)
    near = ((row[:, None] - row).abs() <= patch // 2) & (
        (column[:, None] - column).abs() <= patch // 2
    )
    return near.float().repeat(1, channels)


@pytest.mark.parametrize("patch", [3, 5])
def test_square_masks_are_the_local_machine(patch):
    points, y, sigma = (
        uniform(15, 2, 6, 7),
        uniform(3, 2, 6, 7, seed=1),
        torch.tensor([0.05, 0.3, 2.0]),
    )
    masks = square_masks(6, 7, 2, patch)
    torch.testing.assert_close(
        masked_mean(points, y, sigma, masks), local_mean(points, y, sigma, patch), rtol=0, atol=2e-6
    )
    inside = masks.view(6, 7, -1)[patch // 2 : 6 - patch // 2, patch // 2 : 7 - patch // 2].flatten(
        0, 1
    )
    crops = torch.zeros(42, 84)  # rows without a pixel cost nothing and count nowhere
    crops[: len(inside)] = inside
    composite = local_mean(points, y, sigma, patch, "composite")
    torch.testing.assert_close(
        masked_mean(points, y, sigma, crops, composite=True), composite, rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("composite", [False, True])
@pytest.mark.parametrize("rows", ["pixels", "coordinates"])
def test_masks_against_brute_force(composite, rows):
    points, y = (
        uniform(9, 2, 3, 4, dtype=torch.float64),
        uniform(3, 2, 3, 4, seed=1, dtype=torch.float64),
    )
    masks = uniform(12 if rows == "pixels" else 24, 24, seed=2, dtype=torch.float64)
    masks = masks * (masks > 0.4)
    for sigma in (0.01, 0.3, 100.0):
        got = masked_mean(points, y, sigma, masks, composite)
        assert error(got, brute_force_masked(points, y, sigma, masks, composite), points) < 1e-9


@pytest.mark.parametrize("machine", ["local", "equivariant"])
def test_circular_machines_commute_with_shifts(machine):
    """Both do when the data are shifted too; only the equivariant one when the data stay."""
    points, y = uniform(10, 7, 6), uniform(2, 7, 6, seed=1)
    turn = lambda t: t.roll((2, -1), (-2, -1))  # noqa: E731
    for implementation in implementations(machine):
        D = lambda x, z: local_mean(x, z, 0.2, 3, machine, "circular", implementation)  # noqa: B023, E731
        torch.testing.assert_close(D(turn(points), turn(y)), turn(D(points, y)), rtol=0, atol=2e-6)
        stays = (D(points, turn(y)) - turn(D(points, y))).abs().max()
        assert stays < 2e-6 if machine == "equivariant" else stays > 0.05


def test_boundary_in_the_interior_is_equivariant_and_in_corners_local():
    points, y = uniform(10, 9, 8), uniform(2, 9, 8, seed=1)
    boundary, equivariant, here = (
        local_mean(points, y, 0.2, 5, m) for m in ("boundary", "equivariant", "local")
    )
    torch.testing.assert_close(boundary[:, 2:7, 2:6], equivariant[:, 2:7, 2:6], rtol=0, atol=2e-6)
    for rows, columns in itertools.product((slice(0, 2), slice(7, 9)), (slice(0, 2), slice(6, 8))):
        torch.testing.assert_close(
            boundary[:, rows, columns], here[:, rows, columns], rtol=0, atol=2e-6
        )
    assert (boundary - here).abs().max() > 0.05 and (boundary - equivariant).abs().max() > 0.05


@pytest.mark.parametrize(("machine", "padding"), [v for v in VARIANTS if v[0] != "composite"])
def test_black_and_white_follows_the_majority(machine, padding):
    """Kamb & Ganguli's toy: one image black, one white, 3 x 3 windows; a pixel becomes its window's
    majority."""
    points = torch.stack([torch.zeros(8, 9), torch.ones(8, 9)])
    y = (uniform(4, 8, 9) > 0.5).float()
    y[:, :, ::2] *= 0.98  # no window of 4, 6 or 9 pixels is half white
    mode = "circular" if padding == "circular" else "constant"

    def window(t):
        return F.unfold(F.pad(t[:, None], (1,) * 4, mode=mode), 3)

    white = window(y - 0.5).sum(1).view(4, 8, 9)  # outside the image 0, which votes for neither
    clear = white.abs() > 0.02
    for implementation in implementations(machine):
        x_hat = local_mean(points, y, 0.01, 3, machine, padding, implementation)
        assert torch.equal(x_hat[clear] > 0.5, white[clear] > 0)
        assert ((x_hat < 1e-6) | (x_hat > 1 - 1e-6))[clear].all() and clear.float().mean() > 0.8


def test_one_image():
    """Its own pixels for LS, whatever y; for boundary too where a border pixel has only its own
    place."""
    points, y = uniform(1, 3, 7, 7), noise(2, 3, 7, 7)
    for machine in ("local", "composite"):
        torch.testing.assert_close(
            local_mean(points, y, 0.1, 3, machine), points.expand(2, -1, -1, -1)
        )
    corners = local_mean(points, y, 0.1, 3, "boundary")[:, :, ::6, ::6]
    torch.testing.assert_close(corners, points[:, :, ::6, ::6].expand(2, -1, -1, -1))


# independence of how the work is cut


@pytest.mark.parametrize(("machine", "padding"), VARIANTS)
def test_rows_chunks_and_threads_do_not_matter(machine, padding, monkeypatch):
    points, y, sigma = (
        uniform(70, 7, 6),
        uniform(5, 7, 6, seed=1),
        torch.tensor([0.05, 0.1, 0.3, 1.0, 10.0]),
    )
    for implementation in implementations(machine):
        D = lambda z, s: local_mean(points, z, s, 3, machine, padding, implementation)  # noqa: B023, E731
        whole, threads = D(y, sigma), torch.get_num_threads()
        torch.testing.assert_close(
            torch.cat([D(y[i : i + 1], sigma[i]) for i in range(5)]), whole, rtol=0, atol=1e-6
        )
        assert torch.equal(D(y.flip(0), sigma.flip(0)).flip(0), whole) or machine == "equivariant"
        monkeypatch.setattr(local, "ROOM", 300)
        torch.testing.assert_close(D(y, sigma), whole, rtol=0, atol=1e-6)
        monkeypatch.undo()
        torch.set_num_threads(3)
        torch.testing.assert_close(D(y[:1], 0.05), whole[:1], rtol=0, atol=1e-6)
        torch.set_num_threads(threads)


def test_masks_are_normalised_over_all_images_at_once(monkeypatch):
    """Lukoianov et al.'s code averages batches that are normalised each for itself: far from this."""
    points, y, masks = uniform(40, 5, 4), uniform(3, 5, 4, seed=1), square_masks(5, 4, 1, 3)
    whole = [masked_mean(points, y, 0.1, masks, c) for c in (False, True)]
    monkeypatch.setattr(masked, "ROOM", 2 * 20 * 7)
    for composite in (False, True):
        torch.testing.assert_close(
            masked_mean(points, y, 0.1, masks, composite), whole[composite], rtol=0, atol=1e-6
        )
    averaged = torch.stack([masked_mean(part, y, 0.1, masks) for part in points.split(8)]).mean(0)
    assert (averaged - whole[0]).abs().max() > 0.1


@pytest.mark.parametrize(("machine", "padding"), VARIANTS)
def test_strides_dtypes_and_empty_batches(machine, padding):
    points, y = uniform(6, 2, 5, 6), uniform(3, 2, 5, 6, seed=1)
    want = local_mean(points, y, 0.2, 3, machine, padding)
    turned = (
        points.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
        y.permute(0, 2, 3, 1).contiguous(),
    )
    torch.testing.assert_close(
        local_mean(turned[0], turned[1].permute(0, 3, 1, 2), 0.2, 3, machine, padding), want
    )
    half = local_mean(points.bfloat16(), y.bfloat16(), 0.25, 3, machine, padding)
    exact = brute_force(points.bfloat16(), y.bfloat16(), 0.25, 3, machine, padding)
    assert half.dtype == torch.bfloat16 and error(half, exact, points) < 4e-3
    assert local_mean(points, y[:0], 0.2, 3, machine, padding).shape == (0, 2, 5, 6)
    assert masked_mean(points, y[:0], 0.2, torch.ones(60, 60)).shape == (0, 2, 5, 6)


@pytest.mark.parametrize(("machine", "padding"), VARIANTS)
def test_gradients(machine, padding):
    """y that asks for a gradient goes through torch: the Jacobian by autograd is that of finite
    differences."""
    points = uniform(4, 5, 4, dtype=torch.float64)
    y = uniform(2, 5, 4, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: local_mean(points, z, 0.4, 3, machine, padding), y)
    single = y.detach().float().requires_grad_()
    assert local_mean(points.float(), single, 0.4, 3, machine, padding).requires_grad
    moving = points.float().requires_grad_()
    assert local_mean(moving, single.detach(), 0.4, 3, machine, padding).requires_grad
    assert torch.autograd.gradcheck(
        lambda z: masked_mean(points, z, 0.4, square_masks(5, 4, 1, 3)), y
    )


@needs_c
def test_extreme_numbers():
    """No overflow, no NaN: tiny and huge levels, a query of 1e18 among images of order 1."""
    points, y = uniform(5, 6, 6), uniform(2, 6, 6, seed=1)
    y[1] = 1e18
    for machine, sigma in itertools.product(
        ("local", "equivariant", "boundary"), (1e-18, 1e-3, 1e18)
    ):
        for implementation in implementations(machine):
            x_hat = local_mean(points, y, sigma, 3, machine, implementation=implementation)
            assert ((x_hat >= points.min() - 1e-6) & (x_hat <= points.max() + 1e-6)).all()


# the Wiener filter's masks, and the denoisers


def test_wiener_masks_against_the_definition():
    points = uniform(50, 12, dtype=torch.float64)
    points[:, 3] = 0.7  # never varies
    points[:, 5] = points[:, 4] + 0.05 * noise(50, dtype=torch.float64)
    S = torch.cov(points.T)
    W = S @ torch.linalg.inv(S + 0.3**2 * torch.eye(12, dtype=torch.float64))
    m = wiener_masks(S, 0.3, 0.1)
    alive = [i for i in range(12) if i != 3]
    largest = max(abs(float(W[n, p] / W[n, n])) for n in alive for p in alive)
    for p, n in itertools.product(alive, alive):
        assert m[p, n] == float(abs(W[n, p] / W[n, n]) >= 0.1 * largest)
    assert m[3].sum() == m[:, 3].sum() == 0 and m[5, 4] == m[4, 5] == 1
    assert 0 < m.mean() < 0.9 and wiener_masks(S.float(), 0.3, 1e-9).sum() == 121


def test_denoisers_follow_their_tables():
    points, y, sigma = (
        uniform(8, 1, 6, 6),
        uniform(3, 1, 6, 6, seed=1),
        torch.tensor([0.04, 0.3, 2.0]),
    )
    D = LocalMean(points, {0.05: 3, 1.0: 5}, "boundary")
    sides = [3, 5, 5]
    want = torch.cat(
        [local_mean(points, y[i : i + 1], sigma[i], sides[i], "boundary") for i in range(3)]
    )
    torch.testing.assert_close(D(y, sigma), want, rtol=0, atol=1e-6)
    torch.testing.assert_close(D.double()(y.double(), sigma), want.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(LocalMean(points, 5)(y, sigma), local_mean(points, y, sigma, 5))
    S = torch.cov(points.flatten(1).T)
    M = MaskedMean(points, lambda s: wiener_masks(S, s))
    want = torch.cat(
        [masked_mean(points, y[[i]], sigma[i], wiener_masks(S, float(sigma[i]))) for i in range(3)]
    )
    torch.testing.assert_close(M(y, sigma), want, rtol=0, atol=1e-6)
    fixed = MaskedMean(points, torch.ones(36, 36), composite=True)
    torch.testing.assert_close(fixed(y, sigma), PosteriorMean(points)(y, sigma), rtol=0, atol=2e-6)
    assert "fixed" in fixed.state_dict()


@pytest.mark.parametrize(
    "denoiser", [LocalMean(uniform(3, 6, 6), 3), MaskedMean(uniform(3, 6, 6), torch.ones(36, 36))]
)
def test_export_is_refused(denoiser, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    with pytest.raises(NotImplementedError, match="export PosteriorMean or a network"):
        denoiser(uniform(2, 6, 6), 0.5)


POINTS, Y, MASKS = uniform(5, 6, 7), uniform(2, 6, 7), torch.ones(42, 42)
BAD = [
    (lambda: local_mean(POINTS, Y, 1.0, 4), "patch is 4", "an odd number 3 to 6"),
    (lambda: local_mean(POINTS, Y, 1.0, 1), "patch is 1", "3 to 6"),
    (lambda: local_mean(POINTS, Y, 1.0, 7), "patch is 7 on images of (6, 7)", "3 to 6"),
    (lambda: local_mean(POINTS, Y, 1.0, 7, "composite"), "patch is 7", "takes 1 to 6"),
    (lambda: local_mean(POINTS, Y, 1.0, 3.5), "patch is 3.5", "whole number"),
    (lambda: local_mean(POINTS, Y, 1.0, 3, "ELS"), "machine is 'ELS'", "local, equivariant, boundary, composite"),
    (lambda: local_mean(POINTS, Y, 1.0, 3, padding="reflect"), "padding is 'reflect'", "zeros, circular"),
    *[(lambda m=m: local_mean(POINTS, Y, 1.0, 3, m, "circular"), m, "take zeros") for m in ("boundary", "composite")],
    (lambda: local_mean(POINTS, Y, 1.0, 3, implementation="CUDA"), "implementation is 'CUDA'", "choose one of"),
    (lambda: local_mean(POINTS.double(), Y.double(), 1.0, 3, implementation="C"), "'C'", "choose one of torch"),
    (lambda: local_mean(POINTS, Y.double(), 1.0, 3), "y is torch.float64", "y.to(points)"),
    (lambda: local_mean(POINTS, Y.to("meta"), 1.0, 3), "meta", "y.to(points)"),
    (lambda: local_mean(POINTS[:, 0], Y[:, 0], 1.0, 3), "shape (5, 7)", "images"),
    (lambda: local_mean(POINTS, Y[:, :5], 1.0, 3), "y has shape (2, 5, 7)", "(batch, 6, 7)"),
    (lambda: local_mean(POINTS[:0], Y, 1.0, 3), "points is empty", "at least one"),
    (lambda: local_mean(POINTS / 0, Y, 1.0, 3), "points holds NaN or infinity", "remove"),
    (lambda: local_mean(POINTS, Y / 0, 1.0, 3), "y holds NaN or infinity", "drop"),
    *[(lambda s=s: local_mean(POINTS, Y, s, 3), f"sigma is {s}", "positive and finite") for s in (0.0, -1.0)],
    (lambda: local_mean(POINTS, Y, torch.ones(3), 3), "sigma has shape (3,)", "(batch,)"),
    (lambda: masked_mean(POINTS, Y, 1.0, MASKS[:5]), "masks has shape (5, 42)", "(42, 42)"),
    (lambda: masked_mean(POINTS, Y, 1.0, -MASKS), "below 0", "weights >= 0"),
    (lambda: masked_mean(POINTS, Y, 1.0, MASKS / 0), "infinity", "weights >= 0"),
    (lambda: masked_mean(POINTS, Y, 1.0, MASKS * (torch.arange(42) > 0), True), "coordinate 0", "at least one mask"),
    (lambda: wiener_masks(torch.ones(3, 4), 1.0), "shape (3, 4)", "torch.cov"),
    (lambda: wiener_masks(torch.eye(3), 0.0), "sigma is 0.0", "0 < sigma"),
    (lambda: wiener_masks(torch.eye(3), 1.0, 2.0), "threshold 2.0", "threshold <= 1"),
    (lambda: LocalMean(POINTS, {}), "levels []", "{sigma: side}"),
    (lambda: LocalMean(POINTS, {-1.0: 3}), "[-1.0]", "positive"),
    (lambda: LocalMean(POINTS, {1.0: 4}), "patch is 4", "odd"),
    (lambda: LocalMean(POINTS, 3, "els"), "machine is 'els'", "choose one of"),
    (lambda: MaskedMean(POINTS, MASKS[:5])(Y, 1.0), "masks has shape (5, 42)", "(42, 42)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "value", "remedy"), BAD, ids=[f"{v} / {r}" for _, v, r in BAD])
def test_bad_input(call, value, remedy):
    with pytest.raises(ValueError) as caught:
        call()
    assert value in str(caught.value) and remedy in str(caught.value)
