"""``pyg-clusters spectrum``."""

from pyg_clusters.options.spectrum import SpectrumOptions

OPTIONS = SpectrumOptions
EXAMPLE = "pyg-clusters spectrum sodium clusters.extxyz --width 10 --out spectrum"
LABELS = {
    "clusters": "clusters",
    "pred_peak_ppm": "peak (ppm)",
    "dft_peak_ppm": "peak, DFT (ppm)",
    "overlap": "overlap",
    "effective_isomers": "effective isomers",
    "pred_boltzmann_peak_ppm": "peak, weighted (ppm)",
    "dft_boltzmann_peak_ppm": "peak, DFT, weighted (ppm)",
    "overlap_boltzmann": "overlap, weighted",
}


def run(options: SpectrumOptions):
    """Write NMR spectra of the frames of files."""
    from rich.console import Console
    from rich.table import Table

    from pyg_clusters.analysis import spectrum
    from pyg_clusters.formatting import cell
    from pyg_clusters.frames.checks import list_bad

    result = spectrum(options)
    list_bad(result.bad)
    rows = [group.row for group in result.groups]
    table = Table(title="Spectra: shifts in ppm", title_justify="left")
    table.add_column("")
    for row in rows:
        table.add_column(str(row["size"]), justify="right")
    for key, label in LABELS.items():
        if any(key in row for row in rows):
            table.add_row(label, *(cell(row[key]) if key in row else "-" for row in rows))
    Console(width=100).print(table)
    print(*(f"  {file}" for file in result.files), sep="\n")
