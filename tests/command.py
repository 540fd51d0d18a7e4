"""The command ``commonweight``, run as a person or a script would."""

import os
import subprocess
import sys
from pathlib import Path

KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "GOMP_SPINCOUNT",
    "COMMONWEIGHT_LLAMA_CPP",
)
COMMAND = (sys.executable, "-m", "commonweight")


def environment(**more: str) -> dict[str, str]:
    """A terminal of 80 columns, and no settings from outside that would change what is printed."""
    return {name: os.environ[name] for name in KEPT if name in os.environ} | {"COLUMNS": "80"} | more


def run(
    *arguments: str | Path, stdin: bytes = b"", python: tuple[str, ...] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end. ``python`` are options of the interpreter, ``more`` environment variables."""
    interpreter, *module = COMMAND
    done = subprocess.run(
        [interpreter, *python, *module, *arguments],
        input=stdin,
        env=environment(**more),
        capture_output=True,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def one_line_error(done: subprocess.CompletedProcess[str]) -> str:
    """What the command said when it gave up: one line for a person."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")
