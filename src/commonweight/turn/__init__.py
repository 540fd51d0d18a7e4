"""One assistant turn, from the request to its last event."""

from commonweight.turn.assistant import Assistant, Turn
from commonweight.turn.prepare import LoadFiles
from commonweight.turn.record import Origin, TurnListener, TurnRecord

__all__ = ["Assistant", "LoadFiles", "Origin", "Turn", "TurnListener", "TurnRecord"]
