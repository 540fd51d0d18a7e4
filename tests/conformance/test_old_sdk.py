"""What the suite asks of the current SDK holds for an old one, which sends another version and header."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Server

OLD_SDK = Path(__file__).parents[2] / ".venv" / "old-sdk"


def test_the_old_sdk(server: Server) -> None:
    if not (OLD_SDK / "installed").exists():
        pytest.fail(f"the old SDK is not there; run: make {OLD_SDK.relative_to(OLD_SDK.parents[1])}/installed")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("with_sdk.py"), server.url, server.key],
        env=os.environ | {"PYTHONPATH": str(OLD_SDK)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["version"].startswith("0.")
    assert len(told["outcomes"]) >= 8
    assert {name: why for name, (status, why) in told["outcomes"].items() if status == "failed"} == {}
