"""Options of ``pyg-clusters spectrum``."""

from dataclasses import dataclass
from typing import Literal

from pyg_clusters.options.common import DeviceOptions, FrameOptions, ModelOptions


@dataclass(kw_only=True)
class SpectrumOptions(DeviceOptions, FrameOptions, ModelOptions):
    """NMR spectra from predicted shieldings: shifts (reference minus shielding), broadened, for each cluster size; with
    the energies of the isomers also Boltzmann-weighted, with DFT shieldings beside them. Writes spectrum.csv,
    spectrum.json and spectrum.png.
    """

    reference: float | None = None
    """shielding of the standard in ppm; for sodium that of hydrated Na+ by default"""
    width: float = 10.0
    """full width of a line at half maximum in ppm"""
    shape: Literal["gaussian", "lorentzian", "voigt"] = "gaussian"
    """line shape; voigt has both contributions in equal widths"""
    by: Literal["size", "all"] = "size"
    """one spectrum per cluster size, or one of all clusters"""
    temperature: float = 300.0
    """temperature in K, where frames have energies"""
    energy: str | None = None
    """key of the energy (eV) in the frames; energy by default"""
    target: str | None = None
    """key of the DFT shielding (ppm) of each atom; nmr_shielding by default"""
    overwrite: bool = False
    """replace existing results in the folder"""
    out: str
    """folder of the results"""
