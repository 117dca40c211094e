"""What a paper concludes, and what our figures say of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A statement of a paper, confirmed or denied.

    Attributes:
        statement: What the paper says.
        holds: Whether our figures confirm it; ``None`` where they cannot tell.
        figures: Ours, and the paper's where it gives them.
    """

    statement: str
    holds: bool | None
    figures: str

    @property
    def verdict(self) -> str:
        """In words."""
        return "not decided" if self.holds is None else "holds" if self.holds else "does not hold"
