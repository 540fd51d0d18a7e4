"""The model that is suggested next fits the machine, and is more than what runs."""

import pytest

from commonweight.catalog.reference import HubRepoReference, parse_reference
from commonweight.catalog.suggestions import SUGGESTIONS, suggest_model

GB = 10**9


@pytest.mark.parametrize(
    ("memory", "cores", "name"),
    [
        (2 * GB, 8, "Qwen3-0.6B"),
        (8 * GB, 2, "Qwen3-4B"),
        (16 * GB, 1, "Qwen3-0.6B"),
        (16 * GB, 4, "Qwen3-8B"),
        (64 * GB, 8, "Qwen3-30B-A3B"),
        (GB, 2, None),
    ],
)
def test_what_fits(memory: int, cores: int, name: str | None) -> None:
    found = suggest_model(memory, cores, 98_000_000)
    assert (found.name if found else None) == name


def test_nothing_smaller_than_what_runs() -> None:
    assert suggest_model(8 * GB, 2, 2 * GB) is None


def test_references_can_be_resolved_and_sizes_grow() -> None:
    for one in SUGGESTIONS:
        reference = parse_reference(one.reference)
        assert isinstance(reference, HubRepoReference)
        assert reference.quantisation
        assert one.active_bytes <= one.size_bytes
    assert [one.size_bytes for one in SUGGESTIONS] == sorted(one.size_bytes for one in SUGGESTIONS)
