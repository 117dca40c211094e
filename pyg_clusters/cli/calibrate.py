"""``pyg-clusters calibrate``."""

from pyg_clusters.options.calibrate import CalibrateOptions

OPTIONS = CalibrateOptions
EXAMPLE = "pyg-clusters calibrate runs/dart"


def run(options: CalibrateOptions):
    """Calibrate the intervals of a model."""
    from pyg_clusters.conformal import highest_coverage
    from pyg_clusters.evaluation import calibrate
    from pyg_clusters.units import KCAL_PER_MOL

    calibration = calibrate(options)
    number, energies = len(set(calibration.groups)), calibration.notes["unit"] == "eV"
    targets, unit, factor = ("clusters", "kcal/mol", KCAL_PER_MOL) if energies else ("atoms", "ppm", 1.0)
    highest = highest_coverage(number)
    print(f"{len(calibration.scores)} held-out {targets} in {number} groups: coverage up to {highest:.3f}")
    size = calibration.notes.get("size", 1)
    condition = f" for {size} atoms" if energies else ""
    spread = ", and more with the spread" if calibration.spread != "none" else ""
    for coverage in (coverage for coverage in (0.5, 0.8, 0.9, 0.95) if coverage < highest):
        half = float(calibration.half_width(coverage, [size])[0]) * factor
        print(f"  {100 * coverage:.0f} %: ± {half:.2f} {unit}{condition}{spread}")
    print(f"written to {options.run}/calibration.json")
