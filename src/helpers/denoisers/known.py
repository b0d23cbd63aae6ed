"""The classes of networks by name: what a card, a row of the table of networks or a `PerLevel` means
by it."""

import importlib
import pkgutil

from . import networks
from .base import Network


def classes() -> dict[str, type[Network]]:
    """Those in files of `helpers.denoisers.networks`, and what the reader has defined, the newest of
    a name; nothing takes the name of one of ours."""

    def below(cls: type) -> list[type]:
        subclasses: list[type] = cls.__subclasses__()
        return [found for sub in subclasses for found in (sub, *below(sub))]

    ours = f"{networks.__name__}."
    for file in pkgutil.iter_modules(networks.__path__, ours):
        importlib.import_module(file.name)
    ordered = sorted(below(Network), key=lambda cls: cls.__module__.startswith(ours))
    return {cls.__name__: cls for cls in ordered}
