"""The tutorial that makes a model, run as it is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.workshop

PAGE = Path(__file__).parents[2] / "docs" / "learn" / "make-a-model.md"


@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 9
    script = "set -eu\n" + "\n".join(f"echo '== {number}'\n{block}" for number, block in enumerate(blocks))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    parts = re.split(r"^== \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    _, plan, build, again, lineage, released, verified, changed, served = parts
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
