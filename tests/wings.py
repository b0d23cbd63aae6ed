"""The wings' denoisers for the tests of the contract, which go on without those."""

import torch
from nets import noise

from helpers.denoisers import UNet
from helpers.systems.bastek import darcy, physics
from helpers.systems.bonnaire import dynamics, gaussian
from helpers.systems.campagne import classical, directional
from helpers.systems.levine_weiss import windows
from helpers.systems.permenter_yuan import projection


def images(seed):
    return noise(5, 6, 6, seed=seed).sigmoid()


def plane(seed):
    return noise(12, 2, seed=seed, dtype=torch.float64)


LAW = physics.CircleLaw([0.0, 2.0], [1.0, 3.0], [1.0, 2.0])
TABLE = {0.1: (3, 8), 9.0: (5, 8)}
DENOISERS = {
    "Hermite": lambda s: windows.HermitePolynomial(images(s), 8, patch=TABLE),
    "released polynomial": lambda s: windows.ReleasedPolynomial(images(s), 8),
    "features in time": lambda s: dynamics.FeatureDenoiser(plane(s), 6),
    "cycle spun": lambda s: classical.CycleSpun(levels=1),
    "total variation": lambda s: classical.total_variation(steps=9),
    "non-local": lambda s: classical.non_local_means(patch=3, reach=2),
    "BayesShrink": lambda s: classical.bayes_shrink(1),
    "Fourier cut": lambda s: classical.FourierCut(3),
    "wavelets": lambda s: classical.WaveletThreshold("soft", levels=1),
    "Wiener": lambda s: classical.Wiener.from_points(images(s)),
    "curvelets": lambda s: directional.Curvelets(scales=2),
    "directions": lambda s: directional.DirectionalHaar(shifts=1, most=4),
    "corrected": lambda s: darcy.Corrected(UNet(1, 4, 2, seed=s).eval(), darcy.Darcy(8, 4), 2),
    "blind Gaussian": lambda s: gaussian.BlindGaussian.from_points(noise(80, 6, 6, seed=s)),
    "circle": lambda s: physics.CircleDenoiser(LAW),
    "circle, observed": lambda s: physics.CircleDenoiser(LAW, 1.0),
    "kernel density": lambda s: projection.KernelDensity(plane(s), 0.3),
    "projection": lambda s: projection.Projection(plane(s), 0.3),
}
FITS = {  # to points
    "Hermite": lambda x: windows.HermitePolynomial(x, 8),
    "released": lambda x: windows.ReleasedPolynomial(x, 8, patch=3),
    "Wiener": lambda x: classical.Wiener.from_points(x),
    "kernel density": lambda x: projection.KernelDensity(x, 0.3),
    "projection": lambda x: projection.Projection(x, 0.3),
    "features in time": lambda x: dynamics.FeatureDenoiser(x, 6),
}
