"""Denoisers: one protocol, one file per family."""

from .autoencoder import Autoencoder
from .base import Denoiser, Network, per_level, score
from .bottleneck import PerLevelMLP, ProjectedDenoiser
from .cnn import CNN
from .convolutional import LinearConvolution, PooledConvolution
from .features import FeatureRegression, Polynomial, RandomFeatures
from .gaussian_mixture import GaussianMixture
from .image_mlp import ImageMLP
from .linear import LinearDenoiser
from .local import LocalMean, MaskedMean
from .mlp import MLP
from .per_level import PerLevel
from .polynomial import HermitePolynomial, ReleasedPolynomial, patch_table
from .posterior_mean import PosteriorMean
from .two_images import TwoImages
from .unet import UNet

__all__ = [
    "CNN",
    "MLP",
    "Autoencoder",
    "Denoiser",
    "FeatureRegression",
    "GaussianMixture",
    "HermitePolynomial",
    "ImageMLP",
    "LinearConvolution",
    "LinearDenoiser",
    "LocalMean",
    "MaskedMean",
    "Network",
    "PerLevel",
    "PerLevelMLP",
    "Polynomial",
    "PooledConvolution",
    "PosteriorMean",
    "ProjectedDenoiser",
    "RandomFeatures",
    "ReleasedPolynomial",
    "TwoImages",
    "UNet",
    "patch_table",
    "per_level",
    "score",
]
