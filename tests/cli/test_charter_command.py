"""``commonweight charter`` in a terminal."""

from pathlib import Path

from command import one_line_error, run
from commonweight.charter import DEFAULT, parse


def test_the_default_is_shown() -> None:
    done = run("charter", "show")
    assert done.returncode == 0, done.stderr
    for principle in parse(DEFAULT.read_bytes()).principles:
        assert f" {principle.id} " in done.stdout
    assert "…" not in done.stdout


def test_one_principle_is_shown_whole() -> None:
    done = run("charter", "show", "--principle", "fraud")
    words = " ".join(done.stdout.split())
    fraud = next(one for one in parse(DEFAULT.read_bytes()).principles if one.id == "fraud")
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
    same = run("charter", "diff", old)
    assert (same.returncode, same.stdout) == (0, "nothing changed in meaning\n")


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "No such file" in one_line_error(run("charter", "show", tmp_path / "x.md"))
