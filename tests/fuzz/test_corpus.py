"""What fuzzing found interesting, and what it starts from, without the fuzzer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, seeds

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize(("name", "target"), TARGETS.items())
def test_the_corpus_finds_nothing(name: str, target: Callable[[bytes], None]):
    """Each input of the corpus and each example keeps every property of its target."""
    kept = sorted((CORPUS / name).iterdir())
    assert kept
    for data in (*seeds(name), *(file.read_bytes() for file in kept)):
        target(data)
