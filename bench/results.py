"""What a bench hands back: rows of one table, each with what it stands beside and its aim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEAD = ("what", "ours", "beside it", "ratio", "aim", "met")


@dataclass(frozen=True)
class Row:
    """One measurement; ``aim`` bounds ``ratio`` from below, or from above with ``at_most``."""

    what: str
    ours: str
    beside: str
    ratio: float | None = None
    aim: float | None = None
    at_most: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        if self.ratio is None:
            return (self.what, self.ours, self.beside, "", "", "")
        if self.aim is None:
            return (self.what, self.ours, self.beside, f"{self.ratio:.2f}", "", "")
        met = self.ratio <= self.aim if self.at_most else self.ratio >= self.aim
        sign = "at most" if self.at_most else "at least"
        return (
            self.what,
            self.ours,
            self.beside,
            f"{self.ratio:.2f}",
            f"{sign} {self.aim:.2f}",
            "yes" if met else "**missed**",
        )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table of Markdown, its columns aligned."""
    lines = [HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def count(value: float) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,.0f}"
