"""``python -m benchmarks.load.server``: the command ``commonweight`` itself, but for the process that computes."""

from unittest import mock

from commonweight.cli import loading, main
from commonweight.engines.llama import LlamaEngine


class PlaybackEngine(LlamaEngine):
    """The server's side of the embedded engine, with another process behind it."""

    worker = "benchmarks.load.player"


if __name__ == "__main__":
    with mock.patch.object(loading, "LlamaEngine", PlaybackEngine):
        main()
