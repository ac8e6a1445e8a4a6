#!/usr/bin/env python3
"""The target that FUZZ_TARGET names, under libFuzzer, which starts this again with its arguments."""

from __future__ import annotations

import json
import logging
import os
import random
import sys

import atheris

OURS = ["ravenbus", "ravensql", "ravenmongo", "raven_reader"]

with atheris.instrument_imports(include=OURS):
    from tests.fuzz import targets

ODD = (
    *(None, True, -1, 0, 2**31, 2**63, 2**64, 10**30, 0.5, 1e308, "", "0", "x" * 1025, [], {}),
    *("\0", "\u202e", "\ud800", "\U0001f50c", "$where", "0001-01-01T00:00:00Z"),
    *("9999-12-31T23:59:59.999999Z", "2026-03-01T12:00:00+00:00", [None], {"$gt": ""}),
)
DEEP = "deep"
"""Stands for lists in lists, more than Python's stack takes."""


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change a field of a message, or any bytes: libFuzzer alone seldom leaves JSON whole."""
    rng = random.Random(seed)
    topic, _, payload = data.partition(b"\n")
    try:
        message = json.loads(payload)
        name = rng.choice(list(message) if isinstance(message, dict) else [])
    except (ValueError, IndexError, RecursionError):
        return atheris.Mutate(data, max_size)
    if rng.random() < 0.3:
        return atheris.Mutate(data, max_size)
    other = rng.choice(list(message.values()))
    message[name] = rng.choice([*ODD, DEEP, other])
    if rng.random() < 0.1:
        del message[name]
    changed = json.dumps(message).encode().replace(json.dumps(DEEP).encode(), b"[" * 1500)
    return (topic + b"\n" + changed)[:max_size]


if __name__ == "__main__":
    target = os.environ["FUZZ_TARGET"]
    custom = {"custom_mutator": mutate} if target == "consumer" else {}
    logging.disable()
    atheris.Setup(sys.argv, targets.TARGETS[target], **custom)
    atheris.Fuzz()
