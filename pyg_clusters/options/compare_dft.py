"""Options of ``pyg-clusters compare-dft``."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class CompareDFTOptions:
    """Compare DFT results (or those of any other program) for the candidates of a screening with the predictions:
    dft.csv and dft.png in the folder of the screening. An output belongs to the candidate that equals its first
    structure, whatever the file name, and the energy of its last structure counts; an output without its first
    structure is matched by the number of its folder (0001_Ga46, ...). Outputs may be missing. Energies are compared
    within a composition, so their zero does not matter.
    """

    screening: str = field(metadata={"positional": True})
    """folder of the results of pyg-clusters screen"""
    files: list[str] = field(metadata={"positional": True})
    """outputs: any format that ASE reads"""
    key: str = "energy"
    """name of the energy (eV) in the outputs"""
    overwrite: bool = False
    """replace results in the folder"""
