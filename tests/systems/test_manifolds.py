"""Tangent spaces against differences, angles against known ones, and the nearest image of a class."""

import math

import pytest
import torch

from helpers.data.synthetic import disk_image
from helpers.systems.kadkhodaie.manifolds import angles, nearest_image, tangent_space

PARAMETERS = torch.tensor(
    [[7.3, 8.9, 4.1, 0.8, 0.2], [9.2, 6.5, 3.3, 0.1, 0.7]], dtype=torch.float64
)


def disk(p):
    return disk_image(*p, size=16)


def test_tangent_space_holds_every_small_move():
    basis, h = tangent_space(disk, PARAMETERS[0]), 1e-6
    gram = basis.flatten(1) @ basis.flatten(1).T
    torch.testing.assert_close(gram, torch.eye(5).double())
    for i in range(5):
        step = torch.zeros(5).double()
        step[i] = h
        move = ((disk(PARAMETERS[0] + step) - disk(PARAMETERS[0] - step)) / (2 * h)).flatten()
        rest = move - basis.flatten(1).T @ (basis.flatten(1) @ move)
        assert rest.norm() < 1e-6 * move.norm()


def test_tangent_space_of_an_image_with_fewer_degrees_of_freedom():
    flat = PARAMETERS[0].clone()
    flat[3] = flat[4]  # a disk as bright as its background can be moved without a trace
    with pytest.raises(ValueError, match="dependent"):
        tangent_space(disk, flat)


def test_angles_of_known_planes():
    e = torch.eye(4).double()
    turned = torch.stack([e[0], math.cos(0.3) * e[1] + math.sin(0.3) * e[2]])
    torch.testing.assert_close(
        angles(e[:2], turned), torch.tensor([0.0, math.degrees(0.3)]).double(), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(angles(e[:1], e[3:]), torch.tensor([90.0]).double())


def test_nearest_image_of_a_linear_class_is_the_projection():
    g = torch.Generator().manual_seed(0)
    axes, y = torch.randn(16, 3, generator=g).double(), torch.randn(4, 4, 4, generator=g).double()
    found = nearest_image(lambda t: (axes @ t).view(4, 4), torch.zeros(4, 3), y, steps=1)
    q = torch.linalg.qr(axes).Q
    torch.testing.assert_close(found.flatten(1), y.flatten(1) @ q @ q.T)


def test_nearest_disk_has_five_sigma_squared_and_an_orthogonal_rest():
    sigma, n = 0.01, 100
    g = torch.Generator().manual_seed(0)
    p = PARAMETERS.repeat(n, 1)
    clean = torch.func.vmap(disk)(p)
    y = clean + sigma * torch.randn(clean.shape, generator=g).double()
    found = nearest_image(disk, p, y)
    errors = (found - clean).flatten(1).square().sum(1) / sigma**2
    assert abs(float(errors.mean()) - 5) < 4 * float(errors.std()) / math.sqrt(2 * n)
    assert ((found - y).flatten(1).norm(dim=1) <= (clean - y).flatten(1).norm(dim=1)).all(), (
        "the truth is no nearer"
    )
    exact = nearest_image(disk, p[:2] + 0.05, clean[:2])  # from wrong parameters, without noise
    torch.testing.assert_close(exact, clean[:2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [0, 1.5])
def test_nearest_image_refuses_no_steps(steps):
    with pytest.raises(ValueError, match="steps"):
        nearest_image(disk, PARAMETERS, torch.zeros(2, 16, 16), steps)
