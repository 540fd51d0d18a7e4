"""Remote engine: jobs go over HTTP to upstream servers (vLLM or llama-server) that take and return token ids.

``vllm`` and ``llama_server`` implement the servers' APIs (``backend`` is the common interface), ``upstream`` is
one server and ``routing`` chooses among several, ``discovery`` finds out what a server supports, ``constrained``
enforces grammars where the server does not, and ``engine`` puts them together.
"""

from commonweight.engines.remote.discovery import UpstreamMismatchError, Vocabulary
from commonweight.engines.remote.engine import RemoteEngine

__all__ = ["RemoteEngine", "UpstreamMismatchError", "Vocabulary"]
