"""The official SDK, as it is today and as it was years ago, with files."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from file_server import serving

from commonweight.store import Database

SCRIPT = Path(__file__).with_name("application.py")
OLD_SDK = Path(__file__).parents[2] / ".venv" / "old-sdk"


@pytest.mark.parametrize("version", ["2.", "0.121.0"])
async def test_files_with_the_sdk(version: str, database: Database, tmp_path: Path) -> None:
    script = ['The sky.<cite doc="0">The sky is blue.</cite>']
    async with serving(database, tmp_path / "files", script, quota=100_000) as served:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
        environment |= {"ANTHROPIC_BASE_URL": served.url, "ANTHROPIC_API_KEY": served.alice}
        if version != "2.":
            environment["PYTHONPATH"] = str(OLD_SDK)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SCRIPT),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    facts: dict[str, Any] = json.loads(out)
    assert facts.pop("version")["version"].startswith(version)

    asked = facts.pop("asked")
    [block] = asked["message"]["content"]
    [citation] = block["citations"]
    assert (block["text"], citation["cited_text"]) == ("The sky.", "The sky is blue.")
    assert (citation["type"], citation["file_id"]) == ("char_location", asked["file"])
    assert (citation["start_char_index"], citation["end_char_index"]) == (20, 36)
    assert set(facts) == ({"beta", "ga"} if version == "2." else {"beta"})
    for kind, found in facts.items():
        made = found["made"]
        assert [file["filename"] for file in made][:3] == ["0.txt", "1.txt", "2.txt"]
        assert ("scope" in made[0]) == (kind == "beta")
        assert found["found"] == made[0]
        assert found["listed"] == [file["id"] for file in reversed(made)]  # over two pages
        assert found["content"] == "text 0"
        assert found["deleted"] == [{"id": file["id"], "type": "file_deleted"} for file in made]
        assert found["left"] == []
        missing, name, large = found["errors"]
        assert (missing["class"], missing["status"]) == ("NotFoundError", 404)
        assert (name["class"], name["status"]) == ("BadRequestError", 400)
        assert large["status"] == 400
        assert large["class"] == ("StorageQuotaExceededError" if version == "2." else "BadRequestError")
