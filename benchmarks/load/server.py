"""``python -m benchmarks.load.server``: the command ``commonweight`` itself, but for the process that computes."""

from unittest import mock

from commonweight.cli import main
from commonweight.engines.llama import LlamaEngine
from commonweight.runtime import assistant as runtime


class PlaybackEngine(LlamaEngine):
    """The server's side of the embedded engine, with another process behind it."""

    worker = "benchmarks.load.player"


if __name__ == "__main__":
    with mock.patch.object(runtime, "LlamaEngine", PlaybackEngine):
        main()
