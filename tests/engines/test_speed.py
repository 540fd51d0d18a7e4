"""The speed of an installed llama.cpp, measured in a process of its own."""

from pathlib import Path

import pytest
import tiny

from commonweight.engines.contract import EngineError
from commonweight.engines.llama.model.speed import measure_library
from commonweight.llamacpp.library import list_installed


@pytest.mark.parametrize("kind", list_installed())
def test_the_speed_of_a_library(kind: str, tmp_path: Path) -> None:
    prompt, answer = measure_library(kind, tiny.write(tmp_path, "llama"), threads=1)
    assert 0 < prompt < 60
    assert 0 < answer < 60


def test_a_model_that_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^the prebuilt llama\.cpp cannot be measured"):
        measure_library("prebuilt", tmp_path / "none.gguf", threads=1)
