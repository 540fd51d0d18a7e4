"""Opening an assistant."""

from pathlib import Path

import pytest

from commonweight.catalog.resolve import resolve
from commonweight.catalog.starter import find_starter
from commonweight.runtime.assistant import resolve_model
from commonweight.runtime.settings import AssistantSettings


def test_a_file_called_starter_stays_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = find_starter()
    assert installed is not None
    (tmp_path / "starter").symlink_to(installed)
    monkeypatch.chdir(tmp_path)
    settings = resolve_model(AssistantSettings(model="./starter"))
    assert resolve(settings.model) == Path("starter")
    assert resolve(resolve_model(AssistantSettings(model="starter")).model) == installed
