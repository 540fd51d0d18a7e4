"""Closed exchanges: turns of the user that were refused, with what a client kept in place of an answer.

A closed exchange is over: it is neither screened again nor shown to the model. That a turn was refused is known in
two ways. This server remembers it, with the principles that refused, in bounded memory under a keyed digest of the
tenant, the turn, and the answer before it; a principle that does not hold any more, or not for this key, closes
nothing. Or the assistant's message says so by itself: a placeholder such as ``[refused]``, the message of a
principle, or reasoning that was never signed. To close an exchange that was not refused shows the model less, and
lets nothing pass.
"""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from commonweight.charter.principle import Charter
from commonweight.guard.screening.tenant_memory import TenantMemory
from commonweight.messages.content import (
    ContentBlock,
    TextBlock,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
)
from commonweight.messages.conversation import MessageParam
from commonweight.signing import Purpose, compute_mac

MAX_REMEMBERED_TURNS = 10_000
MAX_PLACEHOLDER_CHARACTERS = 300
"""Of a client's own words in place of the answer to a turn that was refused before any of it left."""
WITHHELD = "[withheld: the answer to this was refused]"
"""In place of a tool's result in a closed exchange, which the call before it cannot do without."""

_PLACEHOLDER = re.compile(
    r"[\[(<{]\s*(?:(?:the )?(?:request|content|message|response|answer) (?:was )?)?"
    r"(?:refused|refusal|declined|blocked|withheld|removed|empty|no (?:content|response|answer))\.?\s*[\])>}]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ClosedExchanges:
    """The messages of a request's closed exchanges, by index."""

    dropped: frozenset[int] = frozenset()
    blanked: frozenset[int] = frozenset()
    """Messages with results of tools, of which only the calls' ends are left."""
    turn: bytes = b""
    """Keyed digest of the turn that is to be answered now."""

    @property
    def indices(self) -> frozenset[int]:
        """All of these messages."""
        return self.dropped | self.blanked

    def remove_from(self, messages: Sequence[MessageParam]) -> list[MessageParam]:
        """The messages that the model is shown."""
        return [
            _blank(message) if i in self.blanked else message
            for i, message in enumerate(messages)
            if i not in self.dropped
        ]


class RefusedTurns:
    """Remembers which turns were refused, and finds closed exchanges. For one event loop at a time.

    Args:
        key: of the digests.
    """

    def __init__(self, charter: Charter, key: bytes, capacity: int = MAX_REMEMBERED_TURNS) -> None:
        self._messages = frozenset(principle.message.strip() for principle in charter.principles)
        self._key = key
        self._turns = TenantMemory[dict[str, bytes]](capacity)
        """By the turns' digests: the principles that refused, with the digests of what had left of the answers."""

    def remember(self, tenant: str, turn: bytes, principle: str, left: str) -> None:
        """Remember that a principle refused a turn.

        ``left``: the text that had left of the answer by then, after the client's own.
        """
        refused = dict(self._turns.get(tenant, turn) or {})
        refused[principle] = self._digest(left.strip().encode(errors="surrogatepass"))
        self._turns.put(tenant, turn, refused)

    def forget(self, tenant: str, turn: bytes, principles: Collection[str]) -> None:
        """Forget the refusals by principles that let the turn pass after all."""
        refused = self._turns.get(tenant, turn) or {}
        left = {name: digest for name, digest in refused.items() if name not in principles}
        if left:
            self._turns.put(tenant, turn, left)
        else:
            self._turns.remove(tenant, turn)

    def match_conversation(
        self, messages: Sequence[MessageParam], tenant: str, principles: Collection[str]
    ) -> ClosedExchanges:
        """Match a conversation with the turns that principles refused. What is asked last is never closed.

        ``principles``: those that refuse this client's requests now.
        """
        spoken = [i for i, message in enumerate(messages) if message.role != "system"]
        groups = [list(indices) for _, indices in groupby(spoken, key=lambda i: messages[i].role)]
        last = max((at for at, group in enumerate(groups) if messages[group[0]].role == "user"), default=-1)
        closed: set[int] = set()
        before, turn = b"", b""
        for at, group in enumerate(groups):
            if messages[group[0]].role != "user":
                if group[0] not in closed:
                    before = _hash_messages(b"", messages, group)[-1]
                continue
            begun = hashlib.sha256(json.dumps(tenant).encode() + before).digest()
            names = [self._digest(name) for name in _hash_messages(begun, messages, group)]
            # A turn whose answer the client left out is followed by the user's next message.
            ended = next(
                (end for end in range(len(group) - 1, 0, -1) if self._find(tenant, names[end - 1], principles)), 0
            )
            closed.update(group[:ended])
            rest = group[ended:]
            turn = self._digest(_hash_messages(begun, messages, rest)[-1]) if ended else names[-1]
            if at < last:
                answer = groups[at + 1]
                blocks = [block for i in answer for block in messages[i].content]
                if self._is_refusal(blocks, self._find(tenant, turn, principles)):
                    closed.update(rest, answer)
        blanked = frozenset(i for i in closed if _has_results(messages[i]))
        return ClosedExchanges(frozenset(closed) - blanked, blanked, turn)

    def _find(self, tenant: str, turn: bytes, principles: Collection[str]) -> frozenset[bytes]:
        """Find the digests of what had left when these principles refused a turn; none: they did not."""
        refused = self._turns.get(tenant, turn) or {}
        return frozenset(left for name, left in refused.items() if name in principles)

    def _is_refusal(self, answer: Sequence[ContentBlock], left: Collection[bytes]) -> bool:
        """Whether an assistant's message stands for a refusal.

        ``left``: digests of the texts that left of refused answers; empty: no refusal is remembered.
        """
        if any(not isinstance(block, TextBlock | ThinkingBlock) for block in answer):
            return False
        text = "".join(block.text for block in answer if isinstance(block, TextBlock)).strip()
        if not text:
            is_unsigned = any(isinstance(block, ThinkingBlock) and not block.signature for block in answer)
            return is_unsigned or bool(left)
        if _PLACEHOLDER.fullmatch(text) or text in self._messages:
            return True
        if self._digest(b"") in left and len(text) <= MAX_PLACEHOLDER_CHARACTERS:
            return True
        return self._digest(text.encode(errors="surrogatepass")) in left

    def _digest(self, data: bytes) -> bytes:
        return compute_mac(self._key, Purpose.GUARD_TEXT, b"turn\0" + data)


def _hash_messages(begun: bytes, messages: Sequence[MessageParam], indices: Sequence[int]) -> list[bytes]:
    """Hashes of ``begun`` with the first message, the first two, and so on.

    What may differ from request to request does not count: cache marks, and how a text is written.
    """
    total = hashlib.sha256(begun)
    found = []
    for i in indices:
        for block in messages[i].content:
            content = (
                block.text
                if isinstance(block, TextBlock)
                else json.dumps(block.model_dump(exclude={"cache_control"}, exclude_none=True))
            )
            data = content.encode(errors="surrogatepass")
            total.update(f"{block.type} {len(data)} ".encode() + data)
        total.update(b"\0")
        found.append(total.digest())
    return found


def _has_results(message: MessageParam) -> bool:
    return any(isinstance(block, ToolResultBlock) for block in message.content)


def _blank(message: MessageParam) -> MessageParam:
    kept = [
        block.model_copy(
            update={
                "content": [
                    *(part for part in block.content if isinstance(part, ToolReferenceBlock)),
                    TextBlock(type="text", text=WITHHELD),
                ]
            }
        )
        for block in message.content
        if isinstance(block, ToolResultBlock)
    ]
    return message.model_copy(update={"content": kept})
