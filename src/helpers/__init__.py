"""The kernels of *The Creative Denoiser*: denoisers, samplers, exact densities, and the measures
that compare them.

One coordinate system everywhere, *variance exploding*: a noisy point is y = x + sigma n with n ~
N(0, I), and a denoiser D(y, sigma) estimates x. Every denoiser, closed form or trained, obeys
`helpers.denoisers.Denoiser`.
"""

__version__ = "0.1.0"
