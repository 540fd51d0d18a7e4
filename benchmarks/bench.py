"""What every row is given: the files, how often to measure, and servers that end with their row."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks import machine, prompts, servers
from benchmarks.client import ask
from benchmarks.servers import Server

SETTLE = 0.2
"""Seconds before each measurement, in which the threads of the server that answered last fall asleep."""
PLAIN = "--no-speculation"
"""llama-server guesses no tokens unless told to, so we do not either where the two are compared."""

T = TypeVar("T")


class Pair(NamedTuple):
    """Commonweight and what it is compared with."""

    ours: Server
    theirs: Server


@dataclass
class Bench:
    """A run of the benchmark."""

    model: Path
    starter: Path | None
    """The file that ``model`` was made of."""
    rounds: int
    scale: float
    """Prompts that should be long are so many times as long."""
    threads: int = field(default_factory=machine.threads)
    commands: dict[str, None] = field(default_factory=dict)
    """The servers that were started, in order."""

    @property
    def few(self) -> int:
        """Rounds of what takes minutes."""
        return (self.rounds + 1) // 2

    def tokens(self, count: int) -> int:
        """So many tokens of a prompt, scaled."""
        return int(count * self.scale)

    def commonweight(
        self,
        cache: Path,
        *flags: str,
        model: Path | None = None,
        guard: str = "off",
        library: servers.Kind = "prebuilt",
    ) -> Server:
        """Ours; its disk cache lies below ``cache``. Without a guard, since others have none."""
        flags = (*flags, "--guard", guard)
        return servers.commonweight(model or self.model, self.threads, cache, *flags, library=library)

    def llama_server(self, model: Path | None = None) -> Server:
        """llama.cpp's."""
        return servers.llama_server(model or self.model, self.threads)

    def vllm(self) -> Server:
        """vLLM on this processor, with the starter model."""
        return servers.vllm()

    @contextlib.contextmanager
    def running(self, *wanted: Server, warm: bool = True) -> Iterator[None]:
        """Run servers until the block is left. An idle one uses no CPU, so both of a pair may be up.

        Each row starts its own: what one row leaves in a cache can't help another.
        """
        with contextlib.ExitStack() as stack:
            for server in wanted:
                self.commands.setdefault(str(server))
                stack.enter_context(servers.running(server))
            for server in wanted if warm else ():
                ask(server, prompts.story(999), 16)
            yield

    @contextlib.contextmanager
    def pair(self, model: Path | None = None) -> Iterator[Pair]:
        """Fresh servers, ours and llama.cpp's, both warm."""
        with self.folder() as cache:
            pair = Pair(self.commonweight(cache, PLAIN, model=model), self.llama_server(model))
            with self.running(*pair):
                yield pair

    @staticmethod
    @contextlib.contextmanager
    def folder() -> Iterator[Path]:
        """An empty folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="commonweight-bench-") as name:
            yield Path(name)


def in_turns(pair: Pair, turn: int, work: Callable[[Server], T]) -> tuple[T, T]:
    """The same work on both; who begins changes every time."""
    done: dict[int, T] = {}
    for server in pair if turn % 2 == 0 else reversed(pair):
        time.sleep(SETTLE)
        done[server.port] = work(server)
    ours, theirs = pair
    return done[ours.port], done[theirs.port]
