"""Options of the verbs as dataclasses, shared by Python and the command line, and the table of the verbs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from pyg_clusters.errors import InputError

Options = TypeVar("Options")


class Verb(NamedTuple):
    """A verb of the command line, or a subcommand of one.

    Attributes:
        purpose: Purpose, for the list of verbs.
        function: Import path of its function, which is called with the options. Its result is printed, with its method
            ``print`` or as text, after the frames in its attribute ``bad``; an iterator item by item.
        example: Arguments of an example, printed at the end of the help.
        options: Dataclass of its options.
        help: Help of a verb whose function parses the arguments itself.
        kind: Word for the subcommands of a verb that has some.
    """

    purpose: str
    function: str = ""
    example: str = ""
    options: type | None = None
    help: str = ""
    kind: str = ""


VERBS: dict[str, Verb] = {}
"""The verbs by name, and subcommands as ``label energy``; the modules of this package fill it when imported."""


def verb(name: str, function: str, purpose: str, example: str) -> Callable[[type[Options]], type[Options]]:
    """Register a dataclass as the options of a verb; see :class:`Verb`."""

    def register(options: type[Options]) -> type[Options]:
        VERBS[name] = Verb(purpose, function, example, options)
        return options

    return register


Fragments = Literal["refuse", "keep"]
"""Treatment of a periodic frame that remains in several pieces: refuse it, or keep them at their nearest images."""


def check_counts(options: object, *names: str, least: int = 1):
    """Check that integers, if given, are large enough.

    Raises:
        InputError: Naming the first option that is not.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")


def check_positive(options: object, *names: str, unit: str = "", zero: bool = False):
    """Check that numbers, if given, are finite and positive, or not negative if ``zero``.

    Raises:
        InputError: Naming the first option that is not.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
            kind = ("0 or more" if zero else "positive") + (f" (in {unit})" if unit else "")
            raise InputError(f"--{name.replace('_', '-')} must be {kind}, got {value:g}")


@dataclass(kw_only=True)
class ModelOptions:
    """Trained model."""

    model: str = field(metadata={"positional": True})
    """folder of a run, an ensemble or a saved model, or the name of a pretrained model"""


@dataclass(kw_only=True)
class CheckOptions:
    """Checks of frames."""

    on_bad: Literal["stop", "skip"] = "stop"
    """frames that cannot be used: stop at the first, or skip and list them"""
    fragments: Fragments = "refuse"
    """a frame in a periodic cell is joined over its faces; one that is in several pieces then, or without a cell, is
    refused, or its pieces are kept (of a periodic frame at their nearest images)"""


@dataclass(kw_only=True)
class FrameOptions(CheckOptions):
    """Frames to read."""

    frames: list[str] = field(metadata={"positional": True})
    """files of frames: any format that ASE reads, also compressed (.xz, .gz); frame stores (.h5); folders; or
    the names of shipped ones (gallium_md_57)"""


@dataclass(kw_only=True)
class OverwriteOptions:
    """Treatment of existing results."""

    overwrite: bool = False
    """replace existing results, and start an unfinished job again"""


@dataclass(kw_only=True)
class EnergyUnitOptions:
    """Unit of labels."""

    energy_unit: str | None = None
    """unit of the energies in the frames: eV, meV, Hartree, Ha, Rydberg, Ry, kcal/mol or kJ/mol; by default that
    stated in the file, or else eV"""


@dataclass(kw_only=True)
class DeviceOptions:
    """Device for the calculation."""

    device: str | None = None
    """cpu, cuda, cuda:1, ...; by default CUDA if available"""


@dataclass(kw_only=True)
class RayOptions:
    """Machines for the calculation."""

    engine: Literal["local", "ray"] = "local"
    """local: on this machine; ray: on the workers of a Ray cluster (extra ray)"""
    address: str | None = None
    """address of the Ray cluster, host:port or auto; by default RAY_ADDRESS, else the cores of this machine"""

    def __post_init__(self):
        if self.address is not None and self.engine != "ray":
            raise InputError(f"--address {self.address} belongs to a Ray cluster; add --engine ray")


@dataclass(kw_only=True)
class EngineOptions(DeviceOptions, RayOptions):
    """Machines and devices for predictions; on Ray each worker has its own copy of the model."""


@dataclass(kw_only=True)
class CoverageOptions:
    """Intervals of predictions."""

    coverage: float | None = None
    """probability that an interval contains the true value, 0.9 for example; needs a calibrated model (pyg-clusters
    calibrate)"""

    def __post_init__(self):
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise InputError(f"--coverage must be between 0 and 1 (0.9 for example), got {self.coverage:g}")
