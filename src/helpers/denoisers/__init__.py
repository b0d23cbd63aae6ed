"""Denoisers: one protocol, one file per family."""

from .base import Denoiser, Network, per_level, score
from .bottleneck import ProjectedDenoiser
from .convolutional import LinearConvolution, PooledConvolution
from .features import FeatureRegression, RandomFeatures
from .free_bottleneck import FreeDecoder, FreeEncoder, Zigzag
from .gaussian_mixture import GaussianMixture
from .linear import LinearDenoiser
from .local import LocalMean, MaskedMean
from .mlp import MLP
from .networks.autoencoder import Autoencoder
from .networks.cnn import CNN
from .networks.image_mlp import ImageMLP
from .networks.per_level import PerLevel
from .networks.unet import UNet
from .per_level_mlp import PerLevelMLP
from .polynomial import Polynomial
from .posterior_mean import PosteriorMean
from .two_images import TwoImages

__all__ = [
    "CNN",
    "MLP",
    "Autoencoder",
    "Denoiser",
    "FeatureRegression",
    "FreeDecoder",
    "FreeEncoder",
    "GaussianMixture",
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
    "TwoImages",
    "UNet",
    "Zigzag",
    "per_level",
    "score",
]
