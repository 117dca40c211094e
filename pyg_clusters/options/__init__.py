"""Dataclasses of the options of each verb, shared by Python and the command line, and the table of the verbs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from pyg_clusters.errors import InputError

Options = TypeVar("Options")


class Verb(NamedTuple):
    """A verb of the command line, or a subcommand of one."""

    purpose: str  #: One-line summary for the list of verbs.
    #: Import path of the function, which is called with the options. Its result is printed by its method ``print`` or
    #: as text, after the frames in its attribute ``bad``; an iterator is printed item by item.
    function: str = ""
    example: str = ""  #: Arguments of an example, printed at the end of the help.
    options: type | None = None  #: Dataclass of the options.
    help: str = ""  #: Help text of a verb whose function parses the arguments itself.
    kind: str = ""  #: Noun for the subcommands of the verb, if it has any.


VERBS: dict[str, Verb] = {}
"""Verbs and subcommands (``label energy``) by name; each module of this package adds its own when it is imported."""


def verb(name: str, function: str, purpose: str, example: str) -> Callable[[type[Options]], type[Options]]:
    """Register a dataclass as the options of a verb; see :class:`Verb`."""

    def register(options: type[Options]) -> type[Options]:
        VERBS[name] = Verb(purpose, function, example, options)
        return options

    return register


Fragments = Literal["refuse", "keep"]
"""Treatment of periodic frames that remain in several pieces: refuse them, or keep the pieces at nearest images."""


def check_counts(options: object, *names: str, least: int = 1):
    """Check that the named options, if set, are at least ``least``.

    Raises:
        InputError: If one is smaller; the message names the first.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")


def check_positive(options: object, *names: str, unit: str = "", zero: bool = False):
    """Check that the named options, if set, are finite and positive, or with ``zero`` finite and not negative.

    Raises:
        InputError: If one is not; the message names the first.
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
    """invalid frames: stop at the first, or skip and list them"""
    fragments: Fragments = "refuse"
    """refuse or keep frames in several pieces; periodic frames are first joined across the faces of their cells"""


@dataclass(kw_only=True)
class FrameOptions(CheckOptions):
    """Frames to read."""

    frames: list[str] = field(metadata={"positional": True})
    """files of frames in any format that ASE reads, compressed (.xz, .gz) or not, frame stores (.h5), folders of such
    files, or names of shipped files (gallium_md_57)"""


@dataclass(kw_only=True)
class OverwriteOptions:
    """Treatment of existing results."""

    overwrite: bool = False
    """replace existing results, and start an unfinished job from the beginning"""


@dataclass(kw_only=True)
class EnergyUnitOptions:
    """Unit of labels."""

    energy_unit: str | None = None
    """unit of the energies in the frames: eV, meV, Hartree, Ha, mHa, Rydberg, Ry, kcal/mol or kJ/mol; by default the
    unit stated in the file, otherwise eV"""


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
    """address of the Ray cluster, host:port or auto; by default RAY_ADDRESS if set, otherwise the cores of this
    machine"""

    def __post_init__(self):
        if self.address is not None and self.engine != "ray":
            raise InputError(f"--address {self.address} requires --engine ray")


@dataclass(kw_only=True)
class EngineOptions(DeviceOptions, RayOptions):
    """Machines and devices for predictions; on Ray each worker has its own copy of the model."""


@dataclass(kw_only=True)
class CoverageOptions:
    """Prediction intervals."""

    coverage: float | None = None
    """probability that an interval contains the true value, for example 0.9; requires a model calibrated by
    pyg-clusters calibrate"""

    def __post_init__(self):
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise InputError(f"--coverage must be between 0 and 1 (0.9 for example), got {self.coverage:g}")
