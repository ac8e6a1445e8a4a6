"""Result of a run: for a terminal, as JSON, and as the table in docs/reliability.md."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from raven_harness import stack
from raven_harness.crash.script import KINDS
from raven_harness.crash.system import mosquitto
from raven_harness.crash.verdict import Verdict

SHOWN: Final = 10


def machine() -> dict[str, str]:
    """Return what this ran on."""
    program, _ = mosquitto()
    broker = subprocess.run([*program, "-h"], check=False, capture_output=True, text=True).stdout
    mariadb = subprocess.run(
        [stack.tool("mariadbd"), "--version"], check=False, capture_output=True, text=True
    ).stdout
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        check=False,
        capture_output=True,
        text=True,
        cwd=stack.ROOT,
    ).stdout
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "commit": commit.strip(),
        "python": platform.python_version(),
        "mosquitto": _word_after("version", broker),
        "mariadb": _word_after("Ver", mariadb),
        "kernel": platform.release(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB",
    }


def _word_after(word: str, text: str) -> str:
    words = text.split()
    return words[words.index(word) + 1] if word in words[:-1] else "unknown"


def summary(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict's numbers."""
    return {
        "accepted": verdict.accepted,
        "stores": {
            name: {
                "stored": found.stored,
                "lost": len(found.lost),
                "duplicated": len(found.duplicated),
                "altered": len(found.altered),
                "dead_letters": dict(sorted(found.letters.items())),
                "wrong_dead_letters": found.wrong_letters,
            }
            for name, found in verdict.stores.items()
        },
        "reports_damaged_by_the_line": verdict.damaged,
        "missed_by_the_reader": verdict.missed,
        "sent_while_the_reader_was_away": verdict.away,
    }


def recovery(times: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return the median, the 95th percentile and the longest of each kind's times, seconds."""
    return {
        kind: [_percentile(times[kind], percent) for percent in (50, 95, 100)]
        for kind in KINDS
        if times.get(kind)
    }


def _percentile(times: Sequence[float], percent: float) -> float:
    ordered = sorted(times)
    return round(ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)], 1)


def wrong(verdict: Verdict) -> list[str]:
    """Say what is wrong, with the first numbers of each."""
    lines = []
    for name, found in verdict.stores.items():
        faults = {"lost": found.lost, "duplicated": found.duplicated, "altered": found.altered}
        for what, seqs in faults.items():
            if seqs:
                shown = ", ".join(map(str, seqs[:SHOWN]))
                lines.append(f"{name}: {len(seqs)} {what}: {shown}{' …' * (len(seqs) > SHOWN)}")
        if found.wrong_letters:
            lines.append(f"{name}: {found.wrong_letters} dead letters that should not be so")
    if verdict.missed:
        lines.append(f"{verdict.missed} reports that the reader should have heard")
    if not verdict.accepted:
        lines.append("nothing was accepted")
    return lines


def table(result: Mapping[str, Any]) -> str:
    """Return a result as Markdown."""
    lines = [
        (
            f"{result['minutes']:g} minutes, {sum(result['faults'].values())} faults "
            f"({result['faults_an_hour']:.0f} an hour), seed {result['seed']}, "
            f"{result['rate']:g} readings a second, {result['accepted']:,} accepted."
        ),
        "",
        "| store | stored | lost | duplicated | altered | dead letters |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in result["stores"].items():
        letters = ", ".join(f"{n} {reason}" for reason, n in one["dead_letters"].items()) or "none"
        counts = [one[key] for key in ("stored", "lost", "duplicated", "altered")]
        lines.append(f"| {name} | {' | '.join(f'{n:,}' for n in counts)} | {letters} |")
    lines += [
        "",
        f"| fault | times | {' | '.join(f'recovered in {store}, s' for store in result['stores'])} |",
        f"|---|---|{'---|' * len(result['stores'])}",
    ]
    for kind, times in result["faults"].items():
        took = [one.get(kind) for one in result["recovery_s"].values()]
        shown = [" / ".join(f"{time:.1f}" for time in one) if one else "-" for one in took]
        lines.append(f"| {kind} | {times} | {' | '.join(shown)} |")
    for kind, reason in result["skipped"].items():
        lines.append(f"| {kind} | not done: {reason} |{' - |' * len(result['stores'])}")
    versions = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    ends = ", ".join(f"{how} ({n})" for how, n in result["ended_by_themselves"].items())
    kills = ", ".join(f"{name} {times}" for name, times in result["kills"].items())
    lines += [
        "",
        f"`kill -9`: {sum(result['kills'].values())} ({kills}).",
        "Recovered: median / 95th percentile / longest.",
        f"Ended by themselves and started again: {ends or 'none'}.",
        (
            "Sent while the reader was down or had no port: "
            f"{result['sent_while_the_reader_was_away']:,}; "
            f"missed by a reader that was there: {result['missed_by_the_reader']:,}; "
            f"damaged by the line: {result['reports_damaged_by_the_line']:,}."
        ),
        "",
        f"Measured on: {versions}.",
    ]
    return "\n".join(lines)


def write(page: Path, target: str, text: str) -> None:
    """Put text between the marks that a target of the Makefile has on a page."""
    marks = [f"<!-- made by `make {target}`: {where} -->" for where in ("begin", "end")]
    before, begin, rest = page.read_text().partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"{page} has no {' … '.join(marks)}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
