"""Image classes whose geometry is known: C^alpha images, disks, a ray, sines, shuffled pixels, a
black-and-white toy.

After Kadkhodaie et al. 2024, "Generalization in diffusion models arises from geometry-adaptive
harmonic representations", appendices C.2 and E, and their released code; where the two differ, it
says so. Images are float32 (n, size, size), row 0 on top. Random numbers come from the CPU, in
order of the images: a seed gives the same images on every device, and fewer images are the first of
more, both up to rounding.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import checked_points, positive, positive_int

CHUNK = 64  # images at a time: what is made of them stays in the cache
VARIANTS = {"paper": 0.5, "released": 1.0}  # amplitude of the contour's noise
MOST = 2**34  # bytes of images in memory at once
# pixels over which a disk's edge rises: nearest to the exact coverage of pixels, by experiment
EDGE = 1.3
Device = torch.device | str


def c_alpha(
    n: int,
    alpha: float,
    beta: float | None = None,
    size: int = 80,
    variant: str = "released",
    seed: int = 0,
    device: Device = "cpu",
) -> Tensor:
    r"""Images of two backgrounds of regularity beta that meet at a contour of regularity alpha
    (beta None: alpha).

        x = M B_1 + (1 - M) B_2,   M(row, col) = 1 if row >= round(size C(col)) + size // 2 else 0,
        C = filter(u, alpha),
        B_i = filter(u_i, beta), stretched to [r_1, 1] for one i, [0, r_2] for the other.

    filter(u, a) multiplies the discrete Fourier transform of white noise u by |k|^-a, k the integer
    frequency, and by 1 at k = 0. r_1, r_2 ~ U(0, 1); a fair coin chooses the i of [r_1, 1]. A
    contour that leaves the frame is cut off. For beta = alpha the optimal MSE falls as sigma^(2
    alpha / (alpha + 1)) (figure 4).

    variant "paper": u ~ U[-1/2, 1/2] and the sharp mask M. "released", the data of the authors'
    weights: u ~ U[-1, 1], so the contour swings twice as far, and M is averaged over 2x2 pixels,
    each with its neighbours above and to the left, reflected at the frame. The stretching is the
    code's in both: the paper does not say how intensities reach [0, 1], and the amplitude of the
    backgrounds' noise does not matter after it. In the code a contour that leaves the frame at the
    top comes back from below; here it does not.

    float32 (n, size, size) in [0, 1]. Raises ValueError for n or size not a positive integer, size
    1, a regularity that is not positive and finite, or an unknown variant. Proved: `prop-filtered`.
    """

    size = positive_int("size", size)

    def images(rows: Tensor, backgrounds: Tensor, _: Tensor) -> Tensor:
        row = torch.arange(size, device=rows.device)
        mask = (row[:, None] >= rows[:, None]).float()
        if variant == "released":
            before = (row - 1).abs()  # reflected at the frame
            mask = (mask + mask[:, before]) / 2
            mask = (mask + mask[:, :, before]) / 2
        return torch.lerp(backgrounds[:, 1], backgrounds[:, 0], mask)

    return c_alpha_drawn(images, (size, size), n, alpha, beta, size, variant, seed, device)


def c_alpha_drawn(
    make: Callable[[Tensor, Tensor, Tensor], Tensor],
    shape: tuple[int, ...],
    n: int,
    alpha: float,
    beta: float | None,
    size: int,
    variant: str,
    seed: int,
    device: Device,
) -> Tensor:
    """make(rows, backgrounds, stretch) of what `c_alpha` with the same arguments puts together:
    float32 (n, *shape).

    A chunk at a time: rows (b, size), in each column the first row of background 0; backgrounds (b,
    2, size, size); stretch (b, 2, 1, 1), by which the filtered noise of either was multiplied.
    Raises the errors of `c_alpha`.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}: choose one of {', '.join(VARIANTS)}")
    if size == 1:
        raise ValueError("size is 1: one pixel has no contour; choose 80, as the paper does")
    beta = alpha if beta is None else beta
    for name, value in (("alpha", alpha), ("beta", beta)):
        positive(name, value, "a regularity is positive and finite; the paper's are 1 to 8")

    def parts(u: Tensor) -> Tensor:
        coin, r1, r2 = u[:, :3, None].unbind(1)
        contour, noise = u[:, 3 : 3 + size].double(), u[:, 3 + size :].unflatten(1, (2, size, size))
        # in double precision, so that every device rounds to the same row
        height = _filter(VARIANTS[variant] * (2 * contour - 1), alpha, 1)
        b = _filter(noise.sub_(0.5), beta, 2)
        least, most = b.amin((2, 3), keepdim=True), b.amax((2, 3), keepdim=True)
        bright = torch.cat([coin < 0.5, coin >= 0.5], 1)
        low, high = (
            torch.where(bright, r1, 0)[..., None, None],
            torch.where(bright, 1, r2)[..., None, None],
        )
        stretch = (high - low) / (most - least)
        return make(
            (size * height).round() + size // 2, b.sub_(least).mul_(stretch).add_(low), stretch
        )

    return _drawn(n, shape, 3 + size + 2 * size**2, parts, seed, device)


def disk_image(
    centre_row: Tensor | float,
    centre_column: Tensor | float,
    radius: Tensor | float,
    disk: Tensor | float,
    background: Tensor | float,
    size: int = 80,
) -> Tensor:
    r"""Images of disks with a soft edge, continuously differentiable in all five parameters.

        x(u) = background + (disk - background) m,   m = 3 t^2 - 2 t^3,
        t = clamp((radius - |u - c|) / w + 1/2, 0, 1),

    c the centre, u = (row + 1/2, column + 1/2) the middle of a pixel in the frame [0, size]^2, w =
    1.3 pixels. With m' = 6 t (1 - t) / w and e = (u - c) / |u - c| the tangent vectors of the class
    at x are

        (disk - background) m' e_row,   (disk - background) m' e_column,   (disk - background) m',
        m,   1 - m,

    in the order of the arguments: `torch.func.jacfwd(disk_image, argnums=(0, 1, 2, 3, 4))`.

    Lengths are in pixels, intensities in [0, 1]. Arguments of shapes that broadcast to S give (*S,
    size, size). Raises ValueError for a size that is not a positive integer.
    """
    parameters = torch.broadcast_tensors(
        *map(torch.as_tensor, (centre_row, centre_column, radius, disk, background))
    )
    row, column, r, high, low = (p[..., None, None] for p in parameters)
    u = torch.arange(positive_int("size", size), device=row.device) + 0.5
    # never 0, where the root has no derivative; m is constant around the centre of a disk
    distance = ((u[:, None] - row) ** 2 + (u - column) ** 2).clamp(min=1e-12).sqrt()
    t = ((r - distance) / EDGE + 0.5).clamp(0, 1)
    return low + (high - low) * (t * t * (3 - 2 * t))


def disk_parameters(n: int, size: int = 80, seed: int = 0, device: Device = "cpu") -> Tensor:
    """The parameters of `disks(n, size, seed)`, float32 (n, 5), columns in the order of
    `disk_image`'s arguments.

    For size 80, as in the released code: centre uniform on the integers of [10, 70)^2, radius
    uniform on those of [5, r_max), r_max the distance of the centre from the nearest side of the
    frame, intensities U(0, 1). For another size the same disks, larger or smaller. Raises
    ValueError for n or size not a positive integer.
    """
    scale = positive_int("size", size) / 80  # whole pixels would make small images another class

    def parameters(u: Tensor) -> Tensor:
        centre = 10 + (60 * u[:, :2]).floor()
        room = torch.minimum(centre, 80 - centre).amin(1, keepdim=True) - 5
        radius = 5 + (room * u[:, 2:3]).floor()
        return torch.cat([scale * centre, scale * radius, u[:, 3:]], 1)

    return _drawn(n, (5,), 5, parameters, seed, device)


def disks(n: int, size: int = 80, seed: int = 0, device: Device = "cpu") -> Tensor:
    """Disks at random places, of random radius and intensities: a class with five degrees of
    freedom (figure 5).

    `disk_image` at the parameters `disk_parameters(n, size, seed)`. The optimal MSE is close to 5
    sigma^2 for small sigma. float32 (n, size, size) in [0, 1]. Raises ValueError for n or size not
    a positive integer.
    """
    x = _empty(n, int(size), int(size), device=device)
    p = disk_parameters(n, size, seed, device)
    for rows, (row, column, radius, disk, background) in zip(
        x.split(CHUNK), p.T.split(CHUNK, 1), strict=True
    ):
        rows.copy_(disk_image(row, column, radius, disk, background, size))
    return x


def ray(image: Tensor, n: int, seed: int = 0) -> Tensor:
    """One image at n random intensities, s image with s ~ U(0, 1]: a class with one degree of
    freedom (figure 19).

    float32 (n, H, W) on the image's device, in [0, 1] if the image (H, W) is. The optimal MSE is
    close to sigma^2 for small sigma. Raises ValueError for an image that is not floating and finite
    of shape (H, W), or n not a positive integer.
    """
    if image.ndim != 2:
        raise ValueError(f"image has shape {tuple(image.shape)}: pass one gray image (H, W)")
    image = checked_points(image[None], "image").float()
    return _drawn(n, image.shape[1:], 1, lambda u: (1 - u[..., None]) * image, seed, image.device)


def sine(n: int, size: int = 80, seed: int = 0, device: Device = "cpu") -> Tensor:
    """Sines of one period across the columns, x(row, col) = s sin(2 pi col / size + phi): a 2-D
    cone (figure 20).

    s ~ U(0, 1], phi ~ U[0, 2 pi): the class spans the plane of two quadrature sines, so projecting
    on them is the optimal basis, MSE close to 2 sigma^2 for small sigma. Values are in [-1, 1] with
    mean 0: an offset to [0, 1] would make it a cone no longer. The direction and the law of s are
    ours; the paper says unit frequency, random phase and intensity. float32 (n, size, size). Raises
    ValueError for n not a positive integer or a size below 3.
    """
    size = positive_int("size", size)
    if size < 3:
        raise ValueError(
            f"size is {size}: a sine and its quadrature need at least 3 columns; choose 80"
        )
    wave = 2 * math.pi * torch.arange(size, device=device) / size

    def images(u: Tensor) -> Tensor:
        s, phase = 1 - u[:, :1], 2 * math.pi * u[:, 1:]
        return (s * (wave + phase).sin())[:, None]

    return _drawn(n, (size, size), 2, images, seed, device)


def shuffled(images: Tensor, seed: int = 0, inverse: bool = False) -> Tensor:
    """All images (N, H, W) or (N, C, H, W) with their pixels in one random order; with `inverse` in
    their places again.

    The permutation depends on `seed` and H W alone and keeps all distances, so the optimal MSE is
    that of the images (figure 21). Raises ValueError for another shape.
    """
    if images.ndim not in (3, 4):
        raise ValueError(
            f"images has shape {tuple(images.shape)}: pass (N, H, W) or (N, C, H, W); one is images[None]"
        )
    pixels = images.flatten(-2)
    order = torch.randperm(pixels.shape[-1], generator=torch.Generator().manual_seed(seed))
    return pixels[..., (order.argsort() if inverse else order).to(images.device)].view(images.shape)


def black_white(size: int = 32, device: Device = "cpu") -> Tensor:
    """The training set {black image, white image}, (2, size, size), 0 then 1.

    In a 3x3 local machine trained on it an image is a fixed point when each pixel is the majority
    of its neighbourhood (Kamb & Ganguli 2025). Raises ValueError for a size that is not a positive
    integer.
    """
    size = positive_int("size", size)
    return torch.tensor([0.0, 1.0], device=device)[:, None, None].repeat(1, size, size)


def _filter(noise: Tensor, exponent: float, dimensions: int) -> Tensor:
    """noise (..., size[, size]), its Fourier transform multiplied by |k|^-exponent and by 1 at k =
    0."""
    size, axes = noise.shape[-1], tuple(range(-dimensions, 0))
    k2 = torch.fft.fftfreq(size, 1 / size, device=noise.device, dtype=noise.dtype).square()
    half = k2[: size // 2 + 1]  # real noise: the other half follows
    k2 = half if dimensions == 1 else k2[:, None] + half
    gain = k2.where(k2 > 0, 1) ** (-exponent / 2)
    return torch.fft.irfftn(
        torch.fft.rfftn(noise, dim=axes).mul_(gain), [size] * dimensions, dim=axes
    )


def _drawn(
    n: int,
    shape: tuple[int, ...],
    numbers: int,
    make: Callable[[Tensor], Tensor],
    seed: int,
    device: Device,
) -> Tensor:
    """make(u) for n rows u of `numbers` draws from U[0, 1), a chunk at a time: float32 (n, *shape)."""
    x = _empty(n, *shape, device=device)
    generator = torch.Generator().manual_seed(seed)
    for rows in x.split(CHUNK):
        rows.copy_(make(torch.rand(len(rows), numbers, generator=generator).to(device)))
    return x


def _empty(n: int, *shape: int, device: Device) -> Tensor:
    if (memory := 4 * positive_int("n", n) * math.prod(shape)) > MOST:
        raise ValueError(
            f"n is {n}: at this size these are {memory / 2**30:.0f} GiB, take at most {MOST / 2**30:.0f}"
        )
    return torch.empty(int(n), *shape, device=device)
