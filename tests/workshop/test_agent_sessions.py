"""Sessions of agents: how they are written and read."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from benchmarks.guard.agents import sessions
from benchmarks.guard.agents.scenarios import SCENARIOS
from benchmarks.guard.agents.sessions import Session, build_sessions, digest_line, main, read_table, write_line
from benchmarks.guard.agents.texts import FOLDER, Package, TextsError, read_cuts, read_packages
from benchmarks.guard.agents.workspace import MOST_RESULT, Conversation, Workspace, shorten

from commonweight.messages.content import TextBlock
from commonweight.runtime.errors import UserError
from commonweight.workshop.heads.agent_sessions import read_sessions

COMMITTED = "651a57daa6ec91a6571db2f358ff8ebb3218468688c760fa1f05dd610a569beb"
"""SHA-256 of ``sessions.tsv``, which was committed before any score."""
PACKAGE = Package("1", "pypi", "bakery", "1.0", "bakery-1.0-py3", "", "us/bakery", "MIT", "LICENSE")
MODULE = "".join(
    f'def {name}_bread(loaves):\n    """{name.capitalize()} bread."""\n'
    + "".join(f"    step_{i} = len(loaves) + {i}\n" for i in range(12))
    + "    return step_0\n\n\n"
    for name in ("knead", "proof", "bake", "slice")
)
METADATA = "Name: bakery\nSummary: Bread by the hour\n\n# Bakery\n\nLicense: MIT. Support by mail.\n"
FILES = {"bakery/oven.py": MODULE, "bakery/broken.py": "def (" * 500, "bakery-1.0.dist-info/METADATA": METADATA}
WORK = Workspace(PACKAGE, FILES)


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines))
    return path


def make_line(**more: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": "Bake."},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Slice."},
        {"role": "assistant", "content": "Done."},
    ]
    return {"id": "s", "system": "You bake.", "tools": [], "messages": messages, **more}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_is_a_conversation_that_the_api_takes(scenario: str, tmp_path: Path) -> None:
    line = write_line(f"{scenario}-1", scenario, WORK)
    assert line == write_line(f"{scenario}-1", scenario, WORK)
    assert line != write_line(f"{scenario}-2", scenario, WORK)
    [session] = read_sessions(write(tmp_path / "sessions.jsonl", line))
    assert session.name == f"{scenario}-1"
    assert 6 <= len(session.requests) <= 12
    sizes = [len(request.messages) for request in session.requests]
    assert sizes == sorted(set(sizes))
    assert all(request.messages[-1].role == "user" for request in session.requests)
    roles = [message["role"] for message in json.loads(line)["messages"]]
    assert all(one != other for one, other in pairwise(roles))
    assert "bakery" in line
    assert "loaves" in line or "Support by mail" in line, "what the tools return is of the workspace"


def test_results_are_cut_at_lines() -> None:
    long = "a line of it\n" * 400
    kept, _, rest = shorten(long).rpartition("\n")
    assert len(kept) <= MOST_RESULT
    assert set(kept.split("\n")) == {"a line of it"}
    assert rest == f"[{len(long) - len(kept)} more characters]"
    assert len(shorten("x" * 9000)) < MOST_RESULT + 40
    assert shorten("short") == "short"


def test_a_call_and_its_result_belong_together() -> None:
    talk = Conversation()
    talk.ask("Bake.")
    talk.call("bake", {"loaves": 2}, "2 loaves", "I light the oven.")
    _, call, result = talk.messages
    assert call["content"][0] == {"type": "text", "text": "I light the oven."}
    assert call["content"][1]["id"] == result["content"][0]["tool_use_id"]


def test_a_package_without_functions_has_no_session() -> None:
    with pytest.raises(TextsError, match="no module with two functions"):
        write_line("explain-1", "explain", Workspace(PACKAGE, {"x.py": "", "x.dist-info/METADATA": METADATA}))
    with pytest.raises(TextsError, match="no metadata"):
        write_line("explain-1", "explain", Workspace(PACKAGE, {"bakery/oven.py": MODULE}))


def test_what_is_missing_or_other_than_it_was_is_named(tmp_path: Path) -> None:
    absent = Session("explain-1", "explain", "1", digest_line(write_line("explain-1", "explain", WORK)))
    lines, missing = build_sessions([absent], {"1": PACKAGE}, tmp_path)
    assert not lines
    assert missing == [f"explain-1: {PACKAGE.file} is neither in {tmp_path} nor installed."]
    # A package of the test suite's own, with another digest than the session's.
    installed = replace(PACKAGE, name="pluggy", version=version("pluggy"))
    lines, missing = build_sessions([replace(absent, sha256="0" * 64)], {"1": installed}, tmp_path)
    assert not lines
    assert "other files than the session was written with" in missing[0]


def test_sessions_of_packages_that_are_there_are_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = read_packages()
    small = [row for row in read_table() if packages[row.package].name in ("pluggy", "python-dotenv", "webcolors")]
    monkeypatch.setattr(sessions, "read_table", lambda: small)
    out = tmp_path / "out.jsonl"
    status = main([str(tmp_path), str(out)])
    written = out.read_text().splitlines(keepends=True)
    said = capsys.readouterr()
    assert f"out.jsonl: {len(written)} sessions" in said.out
    assert len(written) + len(said.err.splitlines()) == len(small) == 3
    assert status == (len(written) < 3)
    digests = {row.session: row.sha256 for row in small}
    assert [digest_line(line) for line in written] == [digests[json.loads(line)["id"]] for line in written]
    assert len(written) == sum(is_installed(packages[row.package]) for row in small)


def is_installed(package: Package) -> bool:
    """Whether a package is installed in the version that a session was written with."""
    try:
        return version(package.name) == package.version
    except PackageNotFoundError:
        return False


def test_the_table_is_the_one_that_was_committed_before_any_score() -> None:
    assert hashlib.sha256((FOLDER / "sessions.tsv").read_bytes()).hexdigest() == COMMITTED
    table, packages = read_table(), read_packages()
    assert len({row.session for row in table}) == 40
    assert Counter(row.scenario for row in table) == dict.fromkeys(SCENARIOS, 5)
    repositories = [packages[row.package].repository for row in table]
    assert len(set(repositories)) == 40
    calibrated = {packages[cut.package].repository for cut in read_cuts() if "calibration" in cut.source}
    assert not calibrated.intersection(repositories)


def test_each_message_of_the_users_ends_a_request(tmp_path: Path) -> None:
    [session] = read_sessions(write(tmp_path / "sessions.jsonl", make_line(), ""))
    first, second = session.requests
    assert [len(first.messages), len(second.messages)] == [1, 3]
    [last] = second.messages[-1].content
    assert isinstance(last, TextBlock)
    assert last.text == "Slice."
    assert first.system == second.system


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["{"], ":1: no agent's session, with `id`, `system`, `tools` and `messages`"),
        (["[]"], ":1: no agent's session"),
        ([{"id": "s"}], ":1: no agent's session"),
        ([make_line(id=7)], ":1: no agent's session"),
        ([make_line(messages=[])], ":1: no agent's session"),
        ([make_line(messages=[{"role": "assistant", "content": "Done."}])], ":1: no agent's session"),
        ([make_line(messages=[{"role": "user", "content": 7}])], ":1: no agent's session"),
        ([make_line(tools=[{"name": ""}])], ":1: no agent's session"),
        ([make_line(), make_line()], ":2: there is a session s before"),
        ([""], ": there is no session in it"),
    ],
)
def test_files_that_are_none_are_an_error(tmp_path: Path, lines: list[object], said: str) -> None:
    path = write(tmp_path / "sessions.jsonl", *lines)
    with pytest.raises(UserError) as found:
        read_sessions(path)
    assert str(found.value).startswith(f"{path}{said}")


def test_bytes_and_folders_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "sessions.jsonl").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "sessions.jsonl", tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no file of agents' sessions"):
            read_sessions(path)
