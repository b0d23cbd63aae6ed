"""Sign changes along contours: against waves whose sign changes are known."""

import math

import pytest
import torch
from nets import noise

from helpers import geometry
from helpers.data.synthetic import c_alpha
from helpers.systems.kadkhodaie import harmonics

N = 40
AT = torch.arange(N, dtype=torch.float64)


def wave(periods, axis):
    """Starts at a peak, so that its zeros lie between pixels."""
    line = torch.cos(2 * math.pi * periods * (AT + 0.5) / N)
    return (line[:, None] if axis == 0 else line[None]).expand(N, N).clone()


def step(axis=0, at=N // 2):
    image = torch.zeros(N, N)
    (image if axis == 0 else image.T)[at:] = 1
    return image


@pytest.mark.parametrize("axis", [0, 1])
def test_the_contour_of_a_step(axis):
    points = harmonics.contour(step(axis))
    assert len(points) == pytest.approx(N, abs=2)
    torch.testing.assert_close(points[:, axis], torch.full((len(points),), N / 2 - 0.5).double())
    assert points[:, 1 - axis].diff().abs().sub(1).abs().max() < 1e-9  # a pixel apart


def test_the_contour_is_where_the_image_changes_most():
    """Not where it changes by less, on as long a line."""
    for strong, faint in ((10, 30), (30, 10)):
        points = harmonics.contour(step(0, strong) + 0.3 * step(0, faint))
        assert (points[:, 0] - strong).abs().max() < 3


def test_the_contour_of_a_drawn_image_is_its_own():
    """Of C^alpha images whose halves differ by more than the shading within them."""
    parts = geometry.c_alpha_parts(40, 4, seed=2)
    high = harmonics.contrast(parts.backgrounds, parts.rows) > 0.7
    shares = []
    for image, rows in zip(c_alpha(40, 4, seed=2)[high], parts.rows[high], strict=True):
        near, points = geometry.near(rows), harmonics.contour(image).round().long()
        shares.append(float(near[points[:, 0], points[:, 1]].double().mean()))
    assert len(shares) >= 5 and sorted(shares)[1] > 0.95  # all but one, which a shadow leads astray


def test_no_contour():
    with pytest.raises(ValueError, match="no contour"):
        harmonics.contour(torch.ones(8, 8))
    with pytest.raises(ValueError, match="one gray image"):
        harmonics.contour(torch.ones(1, 8, 8))


def test_straightened_along_a_diagonal():
    """A function that is linear is known between pixels: its values at the points, and beside them
    along the normal."""
    points = torch.stack([torch.arange(8, 30) / 2**0.5 + 5] * 2, 1).double()
    plane = (2 * AT[:, None] + 3 * AT)[None]
    lines = harmonics.straightened(plane, points, 2)[0]
    want = 2 * points[:, 0] + 3 * points[:, 1]
    torch.testing.assert_close(lines[2], want)
    across = (lines[3] - lines[2]).mean()  # along the normal (-1, 1) / sqrt 2
    torch.testing.assert_close(across.abs(), torch.tensor(1 / 2**0.5).double())


def test_changes_leave_out_what_has_no_sign():
    lines = torch.tensor([[[1.0, -1, 1, -1], [1, 0.05, -0.05, 1]], [[0, 0, 0, 0], [1, 1, 1, -1]]])
    assert harmonics.changes(lines).tolist() == [1.5, 1]  # a line of zeros is none
    assert harmonics.changes(lines, dead=0.01).tolist() == [2.5, 1]


@pytest.mark.parametrize("periods", [1, 3, 5])
def test_sign_changes_of_waves(periods):
    """Along a horizontal contour, across it, and both in what is flat; the frame that the contour
    crosses turns nothing."""
    along, across = wave(periods, 1), wave(periods, 0)
    found = harmonics.sign_changes(torch.stack([along, across]), step())
    assert found.along.tolist() == [2 * periods, pytest.approx(0)]
    assert found.across[0] == 0
    lines = across[12:29, 0].sign()
    assert float(found.across[1]) == pytest.approx(int((lines.diff() != 0).sum()), abs=1)
    half = along.clone()
    half[:, N // 2 :] = 0
    part = harmonics.sign_changes(torch.stack([along, half]), step())
    assert part.along[1] == pytest.approx(part.along[0] / 2, abs=1)
    assert part.per_length[1] == pytest.approx(2 * float(part.along[1]), rel=0.1)
    turned = harmonics.sign_changes(torch.stack([along, across]), step(1))
    assert turned.along.tolist() == [pytest.approx(0), 2 * periods]
    assert turned.across[1] == 0
    assert float(found.flat[0]) == pytest.approx(periods, rel=0.2)  # columns see none of it


def test_vectors_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(k, n, n\) and \(n, n\)"):
        harmonics.sign_changes(noise(2, 8, 8), noise(9, 9))


def test_rises():
    assert harmonics.rises(torch.tensor([1.0, 2, 5, 9])) == 1
    assert harmonics.rises(torch.tensor([9.0, 5, 2, 1])) == -1


def test_contrast_of_constant_backgrounds():
    backgrounds = torch.tensor([[0.9, 0.2], [0.1, 0.4]])[..., None, None].expand(2, 2, 6, 6)
    rows = torch.tensor([[3] * 6, [-2, 0, 3, 5, 6, 9]])
    found = harmonics.contrast(backgrounds, rows)
    torch.testing.assert_close(found, torch.tensor([0.7, 0.3]))
