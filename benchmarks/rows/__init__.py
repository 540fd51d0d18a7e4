"""The rows of the table: each is a function that measures, and returns its figures.

A row starts the servers that it needs and leaves nothing behind, so any can run alone.
"""

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.rows import copying, elsewhere, guarding, inside, layer, restart, sessions, throughput
from benchmarks.table import Figure

Row = Callable[[Bench], list[Figure]]

ROWS: dict[str, Row] = {
    "decode": throughput.decode,
    "decode-starter": throughput.decode_starter,
    "streams": throughput.streams,
    "native": throughput.native,
    "used": throughput.used,
    "shared-prefix": sessions.shared_prefix,
    "second-turn": sessions.second_turn,
    "second-turn-of-8": sessions.second_turn_of_many,
    "return": sessions.returning,
    "restart": restart.restart,
    "copying": copying.copying,
    "guard": guarding.guard,
    "vllm": elsewhere.vllm,
    "messages-layer": layer.messages_layer,
    "python": inside.python_between_decodes,
    "probes": inside.probes,
}
"""In the order of the table. Those that compute in this process come last: they leave threads in it."""
