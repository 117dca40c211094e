"""``pyg-clusters benchmark-screening``."""

from rich.console import Console

from pyg_clusters.formatting import print_lines
from pyg_clusters.options.benchmark_screening import BenchmarkScreeningOptions

OPTIONS = BenchmarkScreeningOptions
EXAMPLE = "pyg-clusters benchmark-screening gallium gallium_md_46.extxyz --truth quench_binding_energy --out benchmark"


def run(options: BenchmarkScreeningOptions):
    """Benchmark the strategies of screening, and print the tables."""
    from pyg_clusters.screening.benchmark import benchmark_screening

    result = benchmark_screening(options)
    print_lines(result.warnings)
    console = Console(width=150)
    for table in result.tables():
        console.print(table)
    if options.out is not None:
        print(f"tables and figures in {options.out}")
