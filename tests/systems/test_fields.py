"""Fields and their renderers: what holds exactly, at every size, window and seed."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import noise

from helpers import recorded
from helpers.data import load
from helpers.metrics import psnr
from helpers.realism import radial_spectrum
from helpers.sampling import edm
from helpers.systems.chen import fields
from helpers.systems.chen.conditions import conditioned, kept_bytes, misfit
from helpers.systems.chen.field_training import (
    CHUNK,
    coder_loss,
    crop_loss,
    cut,
    detail,
    packed,
    patched,
    reduced,
    scenes,
    shipped,
    upscaling_loss,
)
from helpers.systems.chen.fields import Coder, Renderer, Upscaler, bicubic, query, tiled
from helpers.training import Recipe, fit, run


def woken(**options) -> Renderer:
    """A renderer in float64 whose last layer is not zero, as training leaves it."""
    renderer = Renderer(**{"features": 4, "width": 8, **options}).double()
    torch.nn.init.normal_(renderer.network[-1].weight, generator=torch.Generator().manual_seed(7))
    return renderer.eval().requires_grad_(False)


def field(b=2, channels=4, grid=8, seed=0):
    return noise(b, channels, grid, grid, seed=seed).double(), noise(
        b, grid, grid, seed=seed + 1
    ).double()


def whole(size):
    return torch.arange(size)[None]


# Queries ------------------------------------------------------------------------------------------


@pytest.mark.theorem("prop-fields-grid")
def test_on_the_feature_grid_offsets_are_zero_and_features_are_themselves():
    features = field()[0]
    told = query(features, 8, whole(8), whole(8))
    assert torch.equal(told[:, :4], features)
    assert torch.equal(told[:, 4:6], torch.zeros(2, 2, 8, 8, dtype=torch.float64))
    assert torch.equal(told[:, 6], torch.ones(2, 8, 8, dtype=torch.float64))


@given(size=st.integers(8, 300))
@settings(max_examples=40, deadline=None)
def test_cell_and_offset_add_up_to_the_place_of_the_pixel(size):
    # a feature that is its own column
    cells = torch.arange(8, dtype=torch.float64).expand(1, 1, 8, 8)
    told = query(cells, size, whole(size), whole(size))
    place = (torch.arange(size, dtype=torch.float64) + 0.5) * 8 / size
    torch.testing.assert_close(told[0, 0, 0] + 0.5 + told[0, 2, 0], place, rtol=0, atol=1e-12)
    offsets = told[0, 1:3]
    assert float(offsets.min()) >= -0.5 and float(offsets.max()) < 0.5
    torch.testing.assert_close(offsets[0], offsets[1].T, rtol=0, atol=0)


@pytest.mark.theorem("prop-fields-windows")
@given(size=st.integers(8, 300), start=st.integers(0, 7), count=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_a_window_asks_what_the_whole_picture_asks(size, start, count):
    features, rows = field()[0], whole(size)[:, start : start + count]
    assert torch.equal(query(features, size, rows, rows), query(features, size, whole(size), whole(size))[
        :, :, start : start + count, start : start + count
    ])  # fmt: skip


def test_outside_of_the_frame_it_is_mirrored():
    features, beyond = field()[0], torch.arange(-5, 25)[None]
    told = query(features, 20, beyond, whole(20))
    torch.testing.assert_close(told[:, :, :5], told[:, :, 5:10].flip(2), rtol=0, atol=0)
    torch.testing.assert_close(told[:, :, 25:], told[:, :, 20:25].flip(2), rtol=0, atol=0)


def test_each_row_has_its_own_size_and_window():
    features, sizes, top = field()[0], torch.tensor([11, 30]), torch.tensor([2, 9])
    told = query(features, sizes, top[:, None] + torch.arange(4), top[:, None] + torch.arange(6))
    for i in range(2):
        rows, columns = (top[i] + torch.arange(n)[None] for n in (4, 6))
        assert torch.equal(told[i], query(features[i : i + 1], int(sizes[i]), rows, columns)[0])


# Rendering ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 13, 24, 37])
def test_bicubic_base_is_that_of_torch(size):
    picture = field()[1]
    want = F.interpolate(picture[:, None], (size, size), mode="bicubic")[:, 0]
    torch.testing.assert_close(bicubic(picture, size), want, rtol=0, atol=1e-12)


@pytest.mark.theorem("prop-fields-grid")
@pytest.mark.parametrize("kernel", [1, 3])
def test_an_untrained_renderer_is_bicubic_and_at_the_size_of_the_grid_the_fixed_picture(kernel):
    features, picture = field()
    renderer = Renderer(4, 8, kernel).double()
    torch.testing.assert_close(
        renderer((features, picture), 21), bicubic(picture, 21), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(renderer((features, picture), 8), picture, rtol=0, atol=1e-12)


@pytest.mark.theorem("prop-fields-windows")
@given(size=st.integers(8, 60), tile=st.integers(3, 61), kernel=st.sampled_from([1, 3]))
@settings(max_examples=25, deadline=None)
def test_tiles_are_the_whole_picture(size, tile, kernel):
    renderer, known = woken(kernel=kernel), field(1)
    torch.testing.assert_close(
        tiled(renderer, known, size, tile), renderer(known, size), rtol=0, atol=1e-12
    )


def test_seams_need_the_whole_radius():
    renderer, known = woken(), field(1)
    errors = [
        float((tiled(renderer, known, 40, 20, halo) - renderer(known, 40)).abs().max())
        for halo in range(8)
    ]
    assert all(error > 1e-6 for error in errors[:6]) and max(errors[6:]) < 1e-12
    normalised = woken(normalised=True)  # its statistics are those of the window, whatever the halo
    assert float((tiled(normalised, known, 40, 20, 8) - normalised(known, 40)).abs().max()) > 1e-3


@pytest.mark.theorem("prop-fields-windows")
def test_a_pixel_sees_exactly_its_radius():
    renderer, (features, picture) = woken(base=False), field(1, grid=40)
    features = features.requires_grad_()
    renderer((features, picture), 40)[0, 20, 20].backward()
    seen = features.grad.abs().sum((0, 1)).nonzero()
    assert (
        seen.amin(0).tolist() == [20 - renderer.radius] * 2
        and seen.amax(0).tolist() == [20 + renderer.radius] * 2
    )


def test_each_colour_is_a_picture_and_an_untrained_network_interpolates_it():
    features, (_, picture) = field()[0], field(6)
    coloured = picture.unflatten(0, (2, 3))
    for made in (Renderer(4, 8, colours=3).double()((features, coloured), 24),
                 Upscaler(8, scale=3, colours=3).double()((features, coloured))):  # fmt: skip
        torch.testing.assert_close(made.flatten(0, 1), bicubic(picture, 24), rtol=0, atol=1e-12)
    assert torch.equal(reduced(coloured, 5).flatten(0, 1), reduced(picture, 5))
    renderer = woken(colours=3)
    complete, part = (renderer((features, coloured), 24, *window) for window in ((), (5, 3, 9, 11)))
    torch.testing.assert_close(part, complete[..., 5:14, 3:14], rtol=0, atol=1e-12)
    places = torch.tensor([[0.9, 0.1], [0.3, 0.6]])
    assert torch.equal(cut(coloured.repeat(1, 1, 5, 5), places)[:, 1],
                       cut(coloured[:, 1].repeat(1, 5, 5), places))  # fmt: skip


@pytest.mark.parametrize("halvings, side", [(1, 16), (2, 8)])
def test_a_coder_of_colours_gives_back_what_it_takes(halvings, side):
    coder = Coder(width=8, colours=3, halvings=halvings)
    z = coder.encode(torch.rand(2, 3, 32, 32))
    features, picture = coder.field(z)
    assert z.shape == (2, 3, side, side)
    assert features.shape == (2, 8, 32, 32) and picture.shape == (2, 3, 32, 32)


def test_an_upscaler_begins_at_bicubic_and_its_pixels_lie_in_their_cells():
    upscaler, known = Upscaler(8, scale=3).double(), field()
    torch.testing.assert_close(upscaler(known), bicubic(known[1], 24), rtol=0, atol=1e-12)
    torch.nn.init.normal_(upscaler.network[4].weight, generator=torch.Generator().manual_seed(7))
    picture = (
        torch.zeros(1, 40, 40).double().requires_grad_()
    )  # it looks six cells far, as a renderer
    upscaler((torch.zeros(1, 0, 40, 40).double(), picture))[0, 60, 62].backward()
    seen = picture.grad[0].nonzero()
    assert seen.amin(0).tolist() == [14, 14] and seen.amax(0).tolist() == [26, 26]


@pytest.mark.theorem("prop-fields-crops")
def test_patches_of_a_partition_have_the_gradient_of_the_whole_picture():
    renderer, known, target = woken(), field(1), noise(1, 40, 40).double()
    renderer.requires_grad_()
    gradients = []
    for tile in (40, 10):
        renderer.zero_grad()
        for i in range(0, 40, tile):
            for j in range(0, 40, tile):
                patch = target[:, i : i + tile, j : j + tile]
                (renderer(known, 40, i, j, tile, tile) - patch).abs().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in renderer.parameters()]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)


# Conditions ---------------------------------------------------------------------------------------


class Gaussian(torch.nn.Module):
    """The denoiser of N(0, 1) in each number."""

    def forward(self, z, sigma):
        return z / (1 + sigma.view(-1, *[1] * (z.ndim - 1)) ** 2)


def test_of_gaussian_latents_the_mean_is_that_given_the_condition():
    known, noise_std, n = 1.5, 0.5, 4000

    def loss(z):
        return (z[:, :1] - known).square().sum() / (2 * noise_std**2)

    levels = edm(12, 0.1, 10.0)
    start = 10 * noise(n, 2)
    z = conditioned(Gaussian(), loss, start, levels, steps=40)
    want = known / (1 + noise_std**2)
    assert float(z[:, 0].mean()) == pytest.approx(want, abs=0.03)
    assert float(z[:, 1].mean()) == pytest.approx(0, abs=0.05)  # of which nothing is known
    assert float(z[:, 0].std()) < math.sqrt(noise_std**2 / (1 + noise_std**2))
    alone = conditioned(None, loss, start, levels, steps=40)  # from the prior's mean: no spread
    assert (
        float(alone[:, 0].mean()) == pytest.approx(want, abs=0.03)
        and float(alone.std(0).max()) < 0.01
    )


def test_the_control_without_a_denoiser_comes_to_rest_at_a_sharp_condition():
    known, noise_std = noise(50, 4), 0.02

    def loss(z):
        return (z - known).square().sum() / (2 * noise_std**2)

    z = conditioned(None, loss, torch.zeros(50, 4), edm(10, 0.1, 10.0), steps=8)
    assert float((z - known / (1 + noise_std**2)).abs().max()) < noise_std


def test_misfit_is_minus_the_log_likelihood_of_its_views():
    coder, z = Coder(width=8), noise(2, 3, 8, 8)
    known = coder.field(z)[1].detach()
    loss = misfit(coder, [(lambda field: field[1], known + 0.1)], 0.2)
    assert loss(z).item() == pytest.approx(known.numel() * 0.01 / (2 * 0.04), rel=1e-4)
    both = [(lambda field: field[1], known), (lambda field: field[1][:, :4], known[:, :4] + 0.1)]
    assert misfit(coder, both, 0.2)(z).item() == pytest.approx(
        known[:, :4].numel() * 0.125, rel=1e-4
    )
    assert misfit(coder, [], 0.2)(z).item() == 0


def test_what_is_kept_is_that_of_the_window():
    renderer, known = Renderer(4, 8), tuple(v.float() for v in field(1))

    def kept(size, window):
        return kept_bytes(lambda: renderer(known, size, 0, 0, window, window))

    assert kept(64, 16) < 1.01 * kept(32, 16)  # the size of the whole costs nothing
    pixels = (64 + 12) ** 2 / (16 + 12) ** 2
    assert pixels * 0.8 < kept(64, 64) / kept(64, 16) < pixels  # weights count once


# Scenes, training, weights ------------------------------------------------------------------------


def test_scenes_are_one_scene_at_all_sizes():
    large = scenes(3, "test", 256)
    assert torch.equal(large, load("c-alpha", "test", 3, 256, alpha=3.0).images)
    assert torch.equal(scenes(3, "test", 48), reduced(large, 48))
    # chunks differ
    assert len({tuple(x.flatten()[:9].tolist()) for x in scenes(CHUNK + 2, size=8)}) == CHUNK + 2


def test_patches_are_cut_from_pictures_and_rendered_alone():
    renderer, known, places = (
        Renderer(4, 8),
        field(3, grid=32),
        torch.tensor([[0.0, 0.99], [0.5, 0.2], [0.7, 0.0]]),
    )
    known = tuple(v.float() for v in known)
    torch.nn.init.normal_(renderer.network[-1].weight)
    with torch.no_grad():
        torch.testing.assert_close(
            patched(known, 70, places, renderer),
            cut(renderer(known, 70), places),
            rtol=0,
            atol=1e-5,
        )
    torch.testing.assert_close(
        patched(known, 70, places), cut(bicubic(known[1], 70), places), rtol=0, atol=1e-5
    )


def test_detail_is_the_spectrum_of_each_patch_and_blind_below_8_bits():
    patches = scenes(3, "test", 32)
    window = torch.hann_window(32).outer(torch.hann_window(32))
    for x, found in zip(patches, detail(patches), strict=True):
        want = radial_spectrum(((x - x.mean()) * window)[None])[1:]
        torch.testing.assert_close(found, (want + 255**-2 / 12).log10(), rtol=0, atol=1e-6)
    flat = detail(0.5 + 1e-5 * noise(2, 32, 32))
    torch.testing.assert_close(
        flat, torch.full_like(flat, math.log10(255**-2 / 12)), rtol=0, atol=1e-3
    )


def test_standardised_latents_and_the_same_field():
    coder, pictures = Coder(width=8), scenes(40)
    before = coder.field(coder.encode(pictures))[1]
    coder.standardise(pictures)
    z = coder.latents(pictures)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(coder.field(z)[1], before, rtol=0, atol=1e-4)
    coder.standardise(pictures)  # once more changes nothing
    torch.testing.assert_close(coder.latents(pictures), z, rtol=0, atol=1e-4)


def test_training_lowers_both_losses_and_goes_on_from_a_checkpoint(tmp_path):
    images = scenes(16, size=40)
    coder = Coder(width=8)
    pictures, recipe = reduced(images, 32), Recipe(steps=30, batch=8, rate=3e-3)
    losses = run(fit(coder, coder_loss(coder, pictures, 8), recipe, pictures))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    with torch.no_grad():
        known = coder.field(coder.encode(pictures))

    def trained(stop, path):
        renderer = Renderer(8, 8)
        for progress in fit(
            renderer, crop_loss(renderer, known, images, 4, 16), recipe, images, path, 0.0
        ):
            if progress.step == stop:
                break
        return renderer

    trained(7, tmp_path / "cut")
    cut, straight = trained(30, tmp_path / "cut"), trained(30, tmp_path / "straight")
    assert all(
        torch.equal(a, b) for a, b in zip(cut.parameters(), straight.parameters(), strict=True)
    )
    assert any(p.abs().max() > 0 for p in straight.network[-1].parameters())


def test_no_image_is_asked_beyond_the_size_at_which_it_is_known():
    images, known, asked = noise(4, 64, 64), torch.tensor([32, 32, 48, 64]), []
    own = torch.arange(4.0)[:, None, None, None].expand(4, 1, 32, 32)  # a feature says whose it is

    def renderer(field, size, top, left, height, width):
        asked.extend(zip(field[0][:, 0, 0, 0].long().tolist(), size.tolist(), strict=True))
        return torch.zeros(len(size), height, width)

    loss, g = (
        crop_loss(renderer, (own, own[:, 0]), images, 64, known=known),
        torch.Generator().manual_seed(0),
    )
    for step in range(4):
        loss(step, g)
    largest = {i: max(r for j, r in asked if j == i) for i in range(4)}
    assert largest[0] == largest[1] == 32 and 40 < largest[2] <= 48 < 56 < largest[3] <= 64


def test_an_upscaler_learns():
    images = scenes(16, size=64)
    known = torch.zeros(16, 0, 32, 32), reduced(images, 32)
    upscaler, recipe = Upscaler(8, scale=2), Recipe(steps=40, batch=8, rate=3e-3)
    losses = run(fit(upscaler, upscaling_loss(upscaler, known, images, 8), recipe, images))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_what_ships_is_what_was_recorded():
    parameters = recorded.load("fields")["networks"]["parameters"]
    for name in ("coder", "latent", "convolutional-0", "pointwise-0"):
        network = shipped(name)
        assert (
            sum(p.numel() for p in network.parameters()) == parameters[name]
            and not network.training
        )
    tensors, about = packed({"r": Renderer(4, 8)}, {"date": "today"})
    assert tensors["r/network.0.weight"].dtype == torch.float16 and set(about) == {"cards", "about"}


def test_recorded_sizes_are_what_the_networks_do_now():
    found, coder, renderer = (
        recorded.load("fields")["sizes"],
        shipped("coder"),
        shipped("convolutional-0"),
    )
    truth = scenes(found["scenes"], "test", 64)
    with torch.no_grad():
        known = coder.field(coder.encode(scenes(found["scenes"], "test")))
        rendered = renderer(known, 64)
    at = found["sizes"].index(64)
    assert psnr(rendered, truth) == pytest.approx(found["psnr"]["convolutional-0"][at], abs=0.1)
    assert psnr(bicubic(known[1], 64), truth) == pytest.approx(
        found["psnr"]["bicubic"][at], abs=0.1
    )


def test_the_recorded_upscaler_is_what_ships():
    found, coder = recorded.load("field_rivals")["upscaled"], shipped("coder")
    truth = scenes(recorded.load("fields")["sizes"]["scenes"], "test", 128)
    with torch.no_grad():
        made = shipped("upscaler-0")(coder.field(coder.encode(reduced(truth, 32))))
    name = f"upscaler, {found['shipped']} steps-0"
    want = found["psnr"][name][found["sizes"].index(128)]
    assert psnr(made, truth) == pytest.approx(want, abs=0.1)


def test_recorded_bytes_are_those_kept_now():
    found, coder, renderer = (
        recorded.load("fields")["conditions"]["bytes"],
        shipped("coder").requires_grad_(False),
        shipped("convolutional-0").requires_grad_(False),
    )
    z = torch.zeros(1, 3, 8, 8, requires_grad=True)
    kept = kept_bytes(lambda: renderer(coder.field(z), 256, 0, 0, 48, 48))
    assert kept == pytest.approx(found["window"][found["sizes"].index(256)], rel=0.05)


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Renderer(kernel=2), r"kernel is 2: choose 3"),
        (
            lambda: Renderer(4, 8)(tuple(v.float() for v in field()), 7),
            r"size is 7, the features are 8 a side",
        ),
        (
            lambda: query(field()[0], 9, torch.tensor([[-10]]), whole(9)),
            r"pixels -10 to -10 of a side of 9",
        ),
        (
            lambda: query(field()[0], 9, torch.tensor([[18]]), whole(9)),
            r"pixels 18 to 18 of a side of 9",
        ),
        (lambda: tiled(woken(), field(), 20, 0), r"tile is 0"),
        (lambda: Coder().encode(torch.zeros(2, 16, 16)), r"pictures have shape \(2, 16, 16\)"),
        (lambda: Coder().encode(torch.zeros(2, 3, 32, 32)), r"to a coder of 3 colours"),
        (lambda: reduced(torch.zeros(2, 16, 16), 17), r"size is 17: reduced makes images smaller"),
        (lambda: misfit(Coder(), [], 0.0), r"noise is 0.0"),
        (
            lambda: conditioned(
                None, lambda z: z.sum(), torch.zeros(1, 2), torch.tensor([2.0, 1.0])
            ),
            r"sigmas end in \[1.0\]: take a schedule that ends in 0",
        ),
        (lambda: scenes(2, size=300), r"size is 300"),
        (lambda: scenes(0), r"n is 0"),
        (lambda: shipped("unknown"), r"no network is called 'unknown'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_grid_is_that_of_the_coder():
    features, picture = Coder().field(torch.zeros(1, 3, 8, 8))
    assert features.shape == (1, 32, fields.GRID, fields.GRID) and picture.shape == (
        1,
        fields.GRID,
        fields.GRID,
    )
