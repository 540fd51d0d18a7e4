"""``commonweight chat``, over a pipe and in a terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from command import COMMAND, environment, run

ONE_THREAD = ("--threads", "1")
SURE = ("--temperature", "0")


def test_lines_of_a_pipe_are_answered_until_the_goodbye() -> None:
    options = (*SURE, *ONE_THREAD, "--max-tokens", "6")
    one = run("chat", *options, stdin=b"Say hello.\n/exit\nSay goodbye.\n")
    assert one.returncode == 0
    assert one.stdout.strip() != ""
    two = run("chat", *options, stdin=b"Say hello.\n\nSay it again.")
    assert two.returncode == 0
    assert two.stdout.startswith(one.stdout)
    assert two.stdout.removeprefix(one.stdout).strip() != ""


def test_every_turn_carries_the_conversation_so_far_until_it_is_cleared() -> None:
    # A window so small that one question fits, but not what four of them and their answers add up to.
    options = (*SURE, *ONE_THREAD, "--context", "80", "--max-tokens", "8")
    done = run("chat", *options, stdin=b"Say hello.\n" * 4 + b"/clear\nSay hello.\n")
    assert done.returncode == 0
    [complaint] = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert re.fullmatch(r"Error: prompt is too long: \d+ tokens > 80 maximum; /clear starts afresh", complaint)
    first = done.stdout.splitlines()[0]
    assert done.stdout.count(first) >= 2, "the cleared conversation did not begin like the first one"


def test_bytes_that_are_no_text_are_no_reason_to_stop() -> None:
    done = run("chat", *ONE_THREAD, "--max-tokens", "4", stdin=b"Say \xff hello.\n", PYTHONIOENCODING="utf-8")
    assert done.returncode == 0
    assert done.stdout.strip() != ""


class Terminal:
    """A terminal with one program in it."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        # As a terminal would start it, also where these tests run in the background, which lets Ctrl-C pass.
        in_terminal = (
            "import os, signal, sys; os.login_tty(0); signal.signal(signal.SIGINT, signal.SIG_DFL); "
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", in_terminal, *COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(TERM="xterm"),
        )
        os.close(theirs)
        self._unread = ""
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, pattern: str) -> None:
        """Wait until ``pattern`` has appeared after what was waited for before."""
        deadline = time.monotonic() + 60
        while (match := re.search(pattern, self._unread)) is None:
            ready, _, _ = select.select([self._ours], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} never came after {self.seen!r}, but: {self._unread!r}"
            self._unread += os.read(self._ours, 1024).decode(errors="replace")
        self.seen += self._unread[: match.end()]
        self._unread = self._unread[match.end() :]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal("chat", *SURE, *ONE_THREAD, "--max-tokens", "7000")
    yield terminal
    terminal.close()


def test_in_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.wait_for("Ctrl-D leaves")
    terminal.wait_for("you")
    # What the model likes to go on with for ever.
    terminal.type(" ".join(["la"] * 24) + "\r")
    terminal.wait_for("(la ){10}")
    terminal.wait_for(r"it +\x1b\[0m\w+")
    terminal.type("\x03")
    terminal.wait_for(r"\(stopped\)")
    terminal.wait_for("you")
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0


def test_in_a_terminal_commands_are_told_and_obeyed(terminal: Terminal) -> None:
    terminal.wait_for("/help tells more")
    terminal.type("/help\r")
    terminal.wait_for(r"/system TEXT[\s\S]*/clear ")
    terminal.type("/system\r")
    terminal.wait_for("Instructions: none")
    terminal.type("/system  Be brief. \r")
    terminal.wait_for(r"Instructions: Be brief\.\x1b")
    terminal.type("/systen x\r")
    terminal.wait_for("There is no /systen; /help lists what there is")
    terminal.type("/system -\r")
    terminal.wait_for("Instructions: none")
    terminal.type("/exit\r")
    assert terminal.process.wait(30) == 0


def test_in_a_terminal_lines_are_broken_before_its_edge(terminal: Terminal) -> None:
    terminal.wait_for("Ctrl-D leaves")
    terminal.type(" ".join(["la"] * 24) + "\r")
    terminal.wait_for(r"it +\x1b\[0m")
    terminal.wait_for(r"(\w.*\r\n){3}")
    first, *lines = terminal.seen.rpartition("it   \x1b[0m")[2].splitlines()
    assert max(len("it   " + first), *map(len, lines)) <= 80


def test_what_only_looks_like_a_command_is_answered_in_a_pipe() -> None:
    done = run("chat", *SURE, *ONE_THREAD, "--max-tokens", "4", stdin=b"/system Be brief.\n/etc\n/help\n")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
