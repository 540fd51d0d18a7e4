"""The tutorial that makes a model, run as it is written."""

from pathlib import Path

import pytest
from pages import run_page

pytestmark = pytest.mark.workshop


@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    _, plan, build, again, lineage, released, verified, changed, served = run_page("make-a-model.md", tmp_path)
    assert "1.4 M parameters" in " ".join(plan.split())
    assert "12 of 12 stages ran" in build
    assert "0 of 12 stages ran" in again
    assert "LicenseRef-Public-Domain" in lineage
    assert "Wrote release" in released
    assert "release: passed" in verified
    assert "README.md" in changed
    assert "FAILED" in changed
    assert '"type":"message"' in served
    # What stays in the folder of the build is private, and nothing of it but digests is in the release.
    folder = tmp_path / "my-model"
    assert (folder / "build").stat().st_mode & 0o777 == 0o700
    assert (folder / "keys" / "signing-key.pem").stat().st_mode & 0o077 == 0
