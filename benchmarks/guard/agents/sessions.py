"""Writes the sessions of agents again: conversations with tools in the workspaces of published packages.

``python -m benchmarks.guard.agents.sessions PACKAGES OUT.jsonl`` reads wheels in the folder ``PACKAGES`` (and, of
those that aren't there, what is installed in this environment) and writes a session a line, for
``commonweight guard eval --all --sessions OUT.jsonl``.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.guard.agents.__main__ import read_files
from benchmarks.guard.agents.scenarios import SCENARIOS, write_system
from benchmarks.guard.agents.texts import FOLDER, Package, TextsError, read_packages
from benchmarks.guard.agents.workspace import Conversation, Workspace


@dataclass(frozen=True)
class Session:
    """A row of the table ``sessions.tsv``."""

    session: str
    """Its name, which all that is drawn in it is drawn by."""
    scenario: str
    package: str
    """Number in the table of packages."""
    sha256: str
    """Of the line."""


def read_table() -> list[Session]:
    """Read the table of sessions."""
    with (FOLDER / "sessions.tsv").open(encoding="utf-8", newline="") as file:
        return [Session(**row) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def write_line(session: str, scenario: str, work: Workspace) -> str:
    """Write a session as a line.

    Raises:
        TextsError: the package has not what the scenario needs.
    """
    draw = Random(session)
    run, role, tools = SCENARIOS[scenario]
    talk = Conversation()
    system = write_system(work, draw, role)
    run(work, talk, draw)
    package = work.package
    line = {
        "id": session,
        "licence": package.licence,
        "package": f"{package.name} {package.version}",
        "system": system,
        "tools": list(tools),
        "messages": talk.messages,
    }
    return json.dumps(line, ensure_ascii=False) + "\n"


def digest_line(line: str) -> str:
    """SHA-256 of a line."""
    return hashlib.sha256(line.encode()).hexdigest()


def build_sessions(
    table: Sequence[Session], packages: dict[str, Package], folder: Path
) -> tuple[list[str], list[str]]:
    """Build the lines of all sessions; also returns what is missing, a sentence each."""
    lines: list[str] = []
    missing: list[str] = []
    for row in table:
        package = packages[row.package]
        try:
            line = write_line(row.session, row.scenario, Workspace(package, read_files(package, folder)))
            if digest_line(line) != row.sha256:
                raise TextsError(f"{package.file} has other files than the session was written with.")
        except TextsError as error:
            missing.append(f"{row.session}: {error}")
        else:
            lines.append(line)
    return lines, missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file. Returns 1 where a session is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard.agents.sessions", description=__doc__)
    parser.add_argument("packages", type=Path, help="folder of wheels")
    parser.add_argument("out", type=Path, help="file to write to")
    given = parser.parse_args(arguments)
    lines, missing = build_sessions(read_table(), read_packages(), given.packages)
    given.out.write_text("".join(lines), encoding="utf-8")
    print(f"{given.out.name}: {len(lines)} sessions")
    for sentence in missing:
        print(sentence, file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
