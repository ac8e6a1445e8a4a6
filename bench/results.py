"""What a bench hands back: rows of one table, each with what it stands beside and its aim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import ClassVar, Protocol


class Line(Protocol):
    """A row of a table, with that table's head."""

    HEAD: ClassVar[tuple[str, ...]]

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""


@dataclass(frozen=True)
class Row:
    """One measurement; ``aim`` bounds ``ratio`` from below, or from above with ``at_most``.

    ``spread`` is the lowest and highest ratio of a round.
    """

    HEAD: ClassVar = ("what", "ours", "beside it", "ratio", "aim", "met")

    what: str
    ours: str
    beside: str
    ratio: float | None = None
    aim: float | None = None
    at_most: bool = False
    spread: tuple[float, float] | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        if self.ratio is None:
            return (self.what, self.ours, self.beside, "", "", "")
        ratio = f"{self.ratio:.2f}"
        if self.spread:
            ratio += " ({:.2f} to {:.2f})".format(*self.spread)
        if self.aim is None:
            return (self.what, self.ours, self.beside, ratio, "", "")
        met = self.ratio <= self.aim if self.at_most else self.ratio >= self.aim
        sign = "at most" if self.at_most else "at least"
        return (
            self.what,
            self.ours,
            self.beside,
            ratio,
            f"{sign} {self.aim:.2f}",
            "yes" if met else "**missed**",
        )


def compared(
    what: str, ours: Sequence[float], label: str, beside: Sequence[float], aim: float | None = None
) -> Row:
    """Return the row of two rates measured in the same rounds: medians, and that of the ratios."""
    ratios = [mine / other for mine, other in zip(ours, beside, strict=True)]
    return Row(
        what,
        count(median(ours)),
        f"{label}: {count(median(beside))}",
        median(ratios),
        aim,
        spread=(min(ratios), max(ratios)),
    )


def at_most(what: str, taken: Sequence[float], aim: float, unit: str, digits: int = 0) -> Row:
    """Return the row of what something takes, in each round or once, beside its aim."""
    ratios = [one / aim for one in taken]
    return Row(
        what,
        f"{median(taken):.{digits}f} {unit}",
        f"aim {aim:g} {unit}",
        median(ratios),
        1.0,
        at_most=True,
        spread=(min(ratios), max(ratios)) if len(ratios) > 1 else None,
    )


def percentiles(what: str, seconds: Sequence[float], p50_ms: float, p99_ms: float) -> list[Row]:
    """Return the rows of the 50th and the 99th percentile of times, each beside its aim."""
    found = quantiles(seconds, n=100)
    return [
        at_most(f"{what}, {number}th percentile", [1000 * found[number - 1]], aim_ms, "ms", 1)
        for number, aim_ms in ((50, p50_ms), (99, p99_ms))
    ]


def table(rows: Sequence[Line]) -> str:
    """Return the rows as a table of Markdown, its columns aligned."""
    lines = [rows[0].HEAD, *(row.cells for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
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
