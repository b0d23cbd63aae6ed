"""Looks at a network in training: what the judges say of images whose quality is known, and the
sheet of samples."""

import io
from dataclasses import replace

import pytest
import torch
from PIL import Image

from helpers import looks
from helpers.data import load
from helpers.denoisers import PerLevel, UNet

SEEN, UNSEEN = load("fashion-mnist", n=100), load("fashion-mnist", "test", 300)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_copies_are_named_copies_and_unseen_images_good():
    copied, fresh = (
        looks.judged(x, SEEN, UNSEEN)
        for x in (SEEN.images[:90], load("fashion-mnist", n=1000).images[900:])
    )
    assert (
        copied["copies"] == copied["quadrants"] == 1
        and fresh["copies"] == 0
        and fresh["quadrants"] < 0.7
    )
    assert abs(fresh["kid"]) < 0.05 and 0.8 < fresh["grain"] < 1.25 and fresh["lost"] == 0


def test_noise_and_blur_are_no_good_images():
    real = load("fashion-mnist", n=1000).images[900:]
    grainy = looks.judged(real + 0.2 * noise(*real.shape), SEEN, UNSEEN)
    blurred = looks.judged(torch.nn.functional.avg_pool2d(real, 5, 1, 2), SEEN, UNSEEN)
    assert grainy["grain"] > 2 and blurred["grain"] < 0.2
    assert looks.judged(noise(100, 32, 32), SEEN, UNSEEN)["kid"] > 10 * abs(
        looks.judged(real, SEEN, UNSEEN)["kid"]
    )


def test_diverged_samples_are_counted_and_left_out():
    real = load("fashion-mnist", n=1000).images[900:].clone()
    real[:25] = torch.nan
    assert looks.judged(real, SEEN, UNSEEN) == looks.judged(real[25:], SEEN, UNSEEN) | {
        "lost": 0.25
    }
    assert looks.judged(torch.full_like(real, torch.nan), SEEN, UNSEEN) == {"lost": 1.0}
    real[27:] = torch.nan  # of two images no error is known, and a card holds no NaN
    assert "kid" in (two := looks.judged(real, SEEN, UNSEEN)) and "kid_error" not in two


def test_colour_is_judged_by_its_gray():
    colour = replace(SEEN, images=SEEN.images[:, None].expand(-1, 3, -1, -1), colour="rgb")
    unseen = replace(UNSEEN, images=UNSEEN.images[:, None].expand(-1, 3, -1, -1), colour="rgb")
    assert looks.judged(colour.images[:50], colour, unseen) == pytest.approx(
        looks.judged(SEEN.images[:50], SEEN, UNSEEN), abs=1e-3
    )


class Asked(PerLevel):
    """Keeps the levels at which it is asked."""

    def estimate(self, y, sigma):
        self.seen = [*getattr(self, "seen", []), float(sigma.flatten()[0])]
        return super().estimate(y, sigma)


def test_each_network_is_sampled_from_where_it_knows_its_way():
    """A blind one from where its source starts, one for each level at its levels alone; around the
    mean."""
    one = {"blocks": 1, "channels": 2, "normalisation": "none"}
    net = Asked([0.1, 3.0, 0.5], **one, blind=False)
    made = looks.samples(net, SEEN.images, "cpu")
    assert net.seen == pytest.approx([3.0, 0.5, 0.1]) and made.shape == (looks.JUDGED, 32, 32)
    assert torch.equal(made, looks.samples(net, SEEN.images, "cpu"))
    starts = {}
    for blind in (True, False):
        net = UNet(**one, blind=blind)
        net.estimate = lambda y, sigma, blind=blind: starts.setdefault(blind, y) * 0
        looks.samples(net, SEEN.images + 1, "cpu")
    assert float(starts[True].std()) == pytest.approx(1, rel=0.02)
    assert float(starts[False].std()) == pytest.approx(40, rel=0.02)
    assert float(starts[True].mean()) == pytest.approx(1 + float(SEEN.images.mean()), abs=0.1)


def test_a_sheet_grows_by_rows_and_a_row_is_replaced(tmp_path):
    sheet, rows = (
        tmp_path / "sheet.png",
        [torch.rand(9, 4, 6, generator=torch.Generator().manual_seed(k)) for k in range(4)],
    )
    for row, made in enumerate(rows[:3]):
        looks.add_row(sheet, made, row)
    looks.add_row(sheet, rows[3], 1)  # after a kill between the sheet and what is known of it
    with Image.open(sheet) as picture:
        assert picture.size == (6 * looks.SHOWN, 4 * 2)
        pixels = torch.tensor(list(picture.get_flattened_data())).view(8, -1, 3)
    for at, made in enumerate((rows[0], rows[3])):
        expected = (255 * made[: looks.SHOWN]).round().permute(1, 0, 2).flatten(1)
        assert bool((pixels[4 * at : 4 * at + 4] == expected[..., None]).all())
    with Image.open(io.BytesIO(looks.as_webp(sheet.read_bytes()))) as small:
        assert small.size == (6 * looks.SHOWN, 8)
