"""Tables that commands print."""

from pyg_clusters.terminal import print_table


def test_wide_tables_are_printed_in_full(capsys):
    """Eleven sizes need more than the usual 100 characters."""
    values = [-602.93 - size for size in range(11)]
    print_table("Peaks", ["", *(f"{size} atoms" for size in range(14, 36, 2))], [["predicted peak", *values]])
    text = capsys.readouterr().out
    assert all(f"{value:.2f}" in text for value in values)
    assert "…" not in text
