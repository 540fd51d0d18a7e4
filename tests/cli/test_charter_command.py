"""``commonweight charter`` in a terminal."""

import json
import re
from pathlib import Path
from typing import get_args

from command import one_line_error, run
from commonweight.charter import DEFAULT, parse
from commonweight.charter.principle import (
    Action,
    Category,
    Front,
    Hazard,
    Mode,
    Overrider,
    Place,
    Settings,
    Severity,
    Tier,
)
from commonweight.charter.reading import PARTS

DEFAULT_FILE = Path(str(DEFAULT))


def test_the_default_is_shown() -> None:
    done = run("charter", "show")
    assert done.returncode == 0, done.stderr
    for principle in parse(DEFAULT.read_bytes()).principles:
        assert f" {principle.id} " in done.stdout
    assert "…" not in done.stdout
    assert "empty: not screened there" in done.stdout


def test_one_principle_is_shown_whole() -> None:
    done = run("charter", "show", "--principle", "fraud")
    words = " ".join(done.stdout.split())
    fraud = next(one for one in parse(DEFAULT.read_bytes()).principles if one.id == "fraud")
    assert "not screened in: tools" in words
    for text in (fraud.title, fraud.restricts, fraud.permits, fraud.message, fraud.complying[0].text):
        assert text in words


def test_there_is_no_such_principle() -> None:
    assert one_line_error(run("charter", "show", "-p", "x")).startswith("x: there is no such principle")


def test_the_source_is_the_file() -> None:
    assert run("charter", "show", "--source").stdout == DEFAULT.read_text()


def test_a_sound_one_passes() -> None:
    done = run("charter", "lint")
    assert done.returncode == 0
    assert parse(DEFAULT.read_bytes()).sha256 in done.stdout
    # Where a principle is not looked for is said, and is no mistake.
    assert "hate: not screened in: thinking, tool_input, tools" in done.stdout


def test_what_is_wrong_is_named_by_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "charter.md"
    file.write_text(DEFAULT.read_text().replace("severity: critical", "severity: awful", 1))
    done = run("charter", "lint", file)
    line = file.read_text().splitlines().index("severity: awful") + 1
    assert done.returncode == 1
    assert done.stdout.startswith(f"{file}:{line}: severity: input should be")
    assert f"{file}:{line}: severity" in run("charter", "show", file).stderr


def test_what_changed_is_shown(tmp_path: Path) -> None:
    old, new = tmp_path / "old.md", tmp_path / "new.md"
    old.write_bytes(DEFAULT.read_bytes())
    new.write_text(DEFAULT.read_text().replace("tier: hard", "tier: safety", 1))
    done = run("charter", "diff", old, new)
    assert done.returncode == 1
    assert [line.strip() for line in done.stdout.splitlines()] == [
        "mass-weapons", "tier changed", "- hard", "+ safety", "! this was a hard principle"
    ]  # fmt: skip
    assert run("charter", "diff", new).stdout == done.stdout  # the package's is the old one
    same = run("charter", "diff", old)
    assert (same.returncode, same.stdout) == (0, "nothing changed in meaning\n")


def test_nothing_is_cut_in_a_narrow_terminal() -> None:
    shown = run("charter", "show", COLUMNS="40").stdout
    for principle in parse(DEFAULT.read_bytes()).principles:
        [line] = [line for line in shown.splitlines() if line.split()[:1] == [principle.id]]
        assert line.split()[1:3] == [principle.tier, principle.severity]
        assert sum(line.count(sign) for sign in "●○◌") == len(principle.applies_to)


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "No such file" in one_line_error(run("charter", "show", tmp_path / "x.md"))


def test_a_new_one_is_sound_and_explains_every_field(tmp_path: Path) -> None:
    file = tmp_path / "my charter.md"
    done = run("charter", "new", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"commonweight serve --charter '{file}'" in done.stdout
    assert run("charter", "lint", file).returncode == 0
    written = file.read_text()
    assert run("charter", "new", "-").stdout == written
    assert one_line_error(run("charter", "new", file)) == f"{file} is there already; name another file"
    assert file.read_text() == written
    front, _, settings = written.partition("## ")
    for text, model in ((front, Front), (settings, Settings)):
        for name, field in model.model_fields.items():
            assert re.search(rf"^(# )?{field.alias or name}:", text, re.MULTILINE), name
    for kind in (Tier, Severity, Place, Action, Mode, Category, Hazard, Overrider):
        for value in get_args(kind):
            assert re.search(rf"\b{value}\b", settings), value
    for part in PARTS:
        assert part in settings


def test_lists_for_programs(tmp_path: Path) -> None:
    charter = json.loads(run("charter", "show", "--json").stdout)
    default = parse(DEFAULT.read_bytes())
    assert [one["id"] for one in charter["principles"]] == [one.id for one in default.principles]
    assert (charter["schema"], charter["sha256"]) == ("charter/2", default.sha256)
    assert json.loads(run("charter", "show", "--json", "-p", "fraud").stdout)["id"] == "fraud"
    file = tmp_path / "charter.md"
    file.write_text(DEFAULT.read_text().replace("severity: critical", "severity: awful", 1))
    done = run("charter", "lint", "--json", file)
    [problem] = json.loads(done.stdout)["problems"]
    assert (done.returncode, problem.keys()) == (1, {"line", "text"})
    file.write_text(DEFAULT.read_text().replace("tier: hard", "tier: safety", 1))
    done = run("charter", "diff", "--json", DEFAULT_FILE, file)
    [change] = json.loads(done.stdout)["changes"]
    assert done.returncode == 1
    assert change == {
        "where": "mass-weapons",
        "what": "tier",
        "kind": "changed",
        "before": "hard",
        "after": "safety",
        "warning": "this was a hard principle",
    }
