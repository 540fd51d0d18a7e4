"""Other people's programs, where ``make clients`` put them, and the surroundings in which they run."""

import os
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"


def claude_code() -> Path:
    """The coding agent: the one binary that npm found to fit this platform."""
    [binary] = _installed().glob("node_modules/@anthropic-ai/claude-code-*/claude")
    return binary


def python() -> Path:
    """An interpreter that has the Python clients."""
    return _installed() / "python" / "bin" / "python"


def environment(home: Path, url: str, key: str) -> dict[str, str]:
    """Where the server is, and nothing of who runs the tests; no client reports to anyone."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return kept | {
        "HOME": str(home),
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": key,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
        "LANGSMITH_TRACING": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "CLIENTS": str(CLIENTS),
    }


def _installed() -> Path:
    if not (CLIENTS / "installed").exists():
        pytest.fail("the clients are not there; run: make clients", pytrace=False)
    return CLIENTS
