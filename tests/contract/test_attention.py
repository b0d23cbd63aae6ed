"""The UNet with self-attention: its formula, and what attention keeps and breaks of a UNet."""

import pytest
import torch
from nets import noise, settled
from torch.nn.functional import scaled_dot_product_attention

from helpers import jacobian
from helpers.denoisers import UNet
from helpers.denoisers.networks.attention import AttentionUNet, SelfAttention


def small(cls, **options):
    return settled(cls(1, 4, **{"normalisation": "none", **options}).double())


def usual(layer, u, z):
    """The same layer by torch's own attention, u what asks and is asked."""
    u, values = u.flatten(2).mT, z.flatten(2).mT
    answers = scaled_dot_product_attention(layer.query(u), layer.key(u), layer.value(values))
    return z + layer.out(answers).mT.reshape(z.shape)


def test_it_is_softmax_attention_on_what_is_divided_by_its_size():
    layer, z = SelfAttention(6).double(), noise(3, 6, 4, 5, dtype=torch.float64)
    size = z.square().mean((1, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(layer(z), usual(layer, z / size, z))
    for c in (1e-3, 255.0):
        torch.testing.assert_close(layer(c * z), c * layer(z))
    # which attention as usual is not
    assert (usual(layer, 3 * z, 3 * z) - 3 * usual(layer, z, z)).abs().max() > 1e-2
    assert not layer(torch.zeros_like(z)).any()


@pytest.mark.parametrize("normalisation", ["bias-free", "none"])
def test_it_is_homogeneous(normalisation):
    net, y = small(AttentionUNet, normalisation=normalisation), noise(2, 12, 12).double()
    for c in (0.01, 3.0, 255.0):
        torch.testing.assert_close(net(c * y, 1.0), c * net(y, 1.0))
    one = jacobian.Jacobian(net, y[:1], 1.0)
    torch.testing.assert_close(one.matvec(y[:1]), net(y[:1], 1.0))


def test_circular_padding_still_commutes_with_shifts_by_the_pooling():
    y, error = noise(2, 12, 12).double(), {}
    for padding in ("circular", "zeros"):
        net = small(AttentionUNet, padding=padding)
        shifted = net(y.roll((4, -2), (1, 2)), 1.0)
        error[padding] = (shifted - net(y, 1.0).roll((4, -2), (1, 2))).abs().max()
    assert error["circular"] < 1e-10 and error["zeros"] > 1e-3


def test_every_pixel_sees_every_pixel_and_the_network_is_no_longer_piecewise_affine():
    y, seen, methods = noise(1, 32, 32).double(), {}, {}
    for cls in (UNet, AttentionUNet):
        net, z = small(cls), y.clone().requires_grad_()
        net(z, 1.0)[0, 0, 0].backward()
        seen[cls] = float((z.grad != 0).double().mean())
        methods[cls] = jacobian.Jacobian(net, y[:, :8, :8], 1.0).method
    assert seen[AttentionUNet] == 1.0 and seen[UNet] < 0.2
    assert methods == {UNet: jacobian.FROZEN, AttentionUNet: jacobian.REFERENCE}
