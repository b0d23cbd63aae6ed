"""The classes of networks by name: what a card, a row of the table of networks or a `PerLevel` means
by it."""

import importlib
import pkgutil

from . import networks
from .base import Denoiser, Network


def classes(base: type[Denoiser] = Network) -> dict[str, type]:
    """Those in files of `helpers.denoisers.networks`, and what the reader has defined below `base`,
    the newest of a name; nothing takes the name of one of ours."""

    def below(cls: type) -> list[type]:
        subclasses: list[type] = cls.__subclasses__()
        return [found for sub in subclasses for found in (sub, *below(sub))]

    ours = f"{networks.__name__}."
    for file in pkgutil.iter_modules(networks.__path__, ours):
        importlib.import_module(file.name)
    package = f"{__name__.partition('.')[0]}."  # where closed forms are that nobody trains
    found = [
        cls
        for cls in below(base)
        if cls.__module__.startswith(ours) or not cls.__module__.startswith(package)
    ]
    ordered = sorted(found, key=lambda cls: cls.__module__.startswith(ours))
    return {cls.__name__: cls for cls in ordered}
