"""Engines elsewhere: jobs go over HTTP to servers that take tokens and give tokens.

``vllm`` and ``llama_server`` are what servers speak (``backend`` is what both have in common), ``place`` is one
server and ``places`` chooses among several, ``trial`` finds out what a server is, ``held`` keeps answers to a
grammar where the server does not, and ``engine`` puts them together.
"""

from commonweight.engines.remote.discovery import UpstreamMismatchError, Vocabulary
from commonweight.engines.remote.engine import RemoteEngine

__all__ = ["RemoteEngine", "UpstreamMismatchError", "Vocabulary"]
