"""``commonweight conformance`` as a person and a program see it."""

import json
import os
import subprocess
import sys

import pytest
from fake import serving

from commonweight import cli
from conftest import Server


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it without any key from outside, in a terminal of 80 columns."""
    environment = {name: value for name, value in os.environ.items() if "API_KEY" not in name}
    return subprocess.run(
        [sys.executable, "-m", "commonweight", "conformance", *arguments],
        env=environment | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_table_of_what_passed() -> None:
    with serving() as url:
        done = command(url, "--section", "streaming")
    assert done.returncode == 0, done.stderr
    assert url in done.stdout
    [row, whole] = [line for line in done.stdout.splitlines() if "11" in line and "│" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["11", "11", "", "streaming"]
    assert [cell.strip() for cell in whole.strip("│").split("│")] == ["11", "11", "", "all"]


def test_what_failed_is_beneath_and_the_exit_code_says_so() -> None:
    with serving(headers={"cache-control": "max-age=60"}) as url:
        done = command(url, "--section", "streaming", "--section", "caching")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    [row] = [number for number, line in enumerate(lines) if "streaming" in line]
    assert "the headers of a stream: no cache-control" in lines[row + 1]
    assert any("caching" in line for line in lines[row + 1 :])


def test_the_same_as_json() -> None:
    with serving() as url:
        done = command(url, "--section", "streaming", "--section", "models", "--model", "m", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["url"], report["model"], report["passed"]) == (url, "m", False)
    assert list(report["sections"]) == ["streaming", "models"]
    assert {check["status"] for check in report["sections"]["streaming"]} == {"passed"}
    page = report["sections"]["models"][0]
    assert page.keys() == {"name", "rule", "status", "why", "seconds"}
    assert (page["name"], page["status"]) == ("the shape of a page", "failed")
    assert "404" in page["why"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("http://127.0.0.1:1",), "cannot reach http://127.0.0.1:1: "),
        (("nowhere",), "cannot reach nowhere: "),
        (("http://127.0.0.1:1", "--section", "magic"), "there is no section 'magic'; there are transport, "),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {words}")
    assert len(done.stderr.splitlines()) == 1


def test_a_server_that_wants_another_key(server: Server) -> None:
    done = command(server.url)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {server.url} refuses the API key: ")
    assert done.stderr.endswith("; say which with --api-key\n")


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "anthropic", None)
    monkeypatch.setattr(sys, "argv", ["commonweight", "conformance", "http://127.0.0.1:1"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: the conformance suite needs anthropic; install with: ")
    assert said.endswith("pip install 'commonweight[conformance]'\n")
