"""A UNet whose middle looks at the whole image: the book's example of an architecture of one's
own."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from .unet import UNet


class SelfAttention(nn.Module):
    r"""Every position asks all others and adds what they answer; one head (Vaswani et al. 2017).

        z_p + W_o sum_q a_pq W_v z_q,   a_p = softmax over q of <W_q u_p, W_k u_q> / sqrt(width),

    with u = z / (root mean square of z over channels and positions). Because of this division the
    weights a do not change when z is multiplied by c > 0, and without a bias the layer is
    homogeneous of degree one; softmax attention as usual, with u = z, is not.

    z (batch, width, H, W) -> the same shape. Costs (H W)^2 products for each channel.
    """

    def __init__(self, width: int):
        super().__init__()
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )

    def forward(self, z: Tensor) -> Tensor:
        u = math.sqrt(math.prod(z.shape[1:])) * F.normalize(z.flatten(1), dim=1).view(z.shape)
        z_q, u_q = z.flatten(2).mT, u.flatten(2).mT  # (batch, positions, width)
        logits = self.query(u_q) @ self.key(u_q).mT / math.sqrt(z.shape[1])
        answers = self.out(logits.softmax(-1) @ self.value(z_q))
        return z + answers.mT.unflatten(-1, z.shape[2:])


class AttentionUNet(UNet):
    """`UNet`, its options too, with a `SelfAttention` at the end of the middle stage, as in the
    networks of Ho et al. 2020.

    What stays: blind, without bias and with "bias-free" or no normalisation it is homogeneous,
    D(c y) = c D(y) for c > 0, hence D(y) = J(y) y; and as attention does not know where a position
    is, padding "circular" still makes it equivariant to shifts by multiples of 2^blocks. What
    attention breaks: every pixel of D(y) depends on every pixel of y, and between two switches of
    its ReLUs the network is no longer affine, so that products with its Jacobian are
    differentiated, not frozen.
    """

    def middle(self, width: int) -> list[nn.Module]:
        return [SelfAttention(width)]
