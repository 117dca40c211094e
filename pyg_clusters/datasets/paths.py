"""Where the data sets that come with the package lie."""

from pathlib import Path

from pyg_clusters.errors import InputError

PACKAGE: Path = Path(__file__).resolve().parents[1]


def shipped_folder(name: str) -> Path:
    """Folder of a shipped data set: within the installed package, or in the checkout beside it.

    Raises:
        InputError: If there is no such data set; the message lists those found.
    """
    homes = (PACKAGE / "_data", PACKAGE.parent / "datasets")
    for home in homes:
        if (home / name / "card.yaml").is_file():
            return home / name
    found = sorted({card.parent.name for home in homes for card in home.glob("*/card.yaml")})
    raise InputError(f"no data set {name!r} comes with the package; found: {', '.join(found) or 'none'}")
