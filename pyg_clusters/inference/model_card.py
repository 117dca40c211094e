"""What to know of a model before its predictions are used: training set, errors, limits."""

import re

from pyg_clusters.inference.run import Run
from pyg_clusters.models.checkpoint import model_folder, read_configuration
from pyg_clusters.models.training_domain import domain_of

SECTIONS = ("Training data", "Limits")
"""Sections of the card of a pretrained model."""


def model_card(run: Run) -> list[str]:
    """Paragraphs on the elements and sizes, the labels and their level of theory, the test error and the limits.

    Args:
        run: A run, an ensemble, or a saved or pretrained model.

    Example:
        >>> model_card(Run("gallium"))[0]
        'DART, trained on Ga clusters of 31 to 70 atoms. MAE on its test set: 3.95 kcal/mol per cluster.'
    """
    folder = model_folder(run.members[0].path if run.members else run.path)
    notes = read_configuration(folder)["notes"]
    domain = domain_of(run.model)
    text = type(run.model).__name__
    if domain is not None:
        text += ", trained on {} clusters of {} to {} atoms".format(domain.symbols, *domain.size_range)
    if run.target:
        text += f", on the label `{run.target}`"
    error = (run.metrics or {}).get("mae_kcal_mol", notes.get("test_mae_kcal_mol"))
    text += "." if error is None else f". MAE on its test set: {error:.2f} kcal/mol per cluster."
    card = folder / "README.md"
    paragraphs = card.read_text(encoding="utf-8").split("\n\n") if card.is_file() else []
    shown = [part for part in paragraphs if re.match(rf"\*\*({'|'.join(SECTIONS)})\.\*\*", part)]
    own = "The level of theory is that of the training labels; the model is valid close to its training set only."
    return [text, *(" ".join(part.split()) for part in shown or [own])]
