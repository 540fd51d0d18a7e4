"""Tracing of special tokens in rendered prompts to the template's own literals.

A template that changes characters (``lower``, ``striptags``, a loop that keeps some of them) can turn text that is
no special token, and that escaping therefore leaves alone, into one. So in the template's literals each special
token is replaced by a stand-in of the same length: lone surrogates, which no text of a request can hold, and which
nobody can guess. In the rendered prompt only whole stand-ins become special tokens; other text that reads like one
is broken.
"""

import re
import secrets
from bisect import bisect_right
from collections.abc import Iterable

from commonweight.prompting.marks import extract_marks
from commonweight.prompting.tokens.escaping import BREAK, insert
from commonweight.prompting.tokens.special_tokens import SpecialTokens

MAX_STAND_INS = 512
"""Most special tokens that can be traced in one template."""

_LEAD, _TAIL = 0xD800, 0xDA00
_TAILS = 0x200
_STAND_IN = re.compile("[\ud800-\udbff][\uda00-\udbff]*")
_CUT = "\N{REPLACEMENT CHARACTER}"


class Tracer:
    """Stand-ins for special tokens in the literals of one template, and their resolution in rendered prompts."""

    def __init__(self, guarded: SpecialTokens, written: Iterable[str]) -> None:
        """``guarded``: tokens that only the template may write; ``written``: those of them that it may write."""
        self._guarded = guarded
        # The first character tells them apart. The others are random, for templates that decode escape sequences.
        self.stand_ins = {
            token: chr(_LEAD + i) + "".join(chr(_TAIL + secrets.randbelow(_TAILS)) for _ in token[1:])
            for i, token in enumerate(sorted(set(written))[:MAX_STAND_INS])
        }
        self._tokens = {stand_in: token for token, stand_in in self.stand_ins.items()}

    def resolve(self, rendered: str) -> str:
        """The prompt with tokens in place of their stand-ins, and breaks in other text that reads like a token."""
        rendered, marks = extract_marks(rendered)
        starts: list[int] = []
        ends: list[int] = []

        def restore(match: re.Match[str]) -> str:
            token = self._tokens.get(match[0])
            if token is None:
                return _CUT * len(match[0])  # the template cut a stand-in
            if ends and ends[-1] == match.start():
                ends[-1] = match.end()
            else:
                starts.append(match.start())
                ends.append(match.end())
            return token

        text = _STAND_IN.sub(restore, rendered)
        breaks = set()
        for position in self._guarded.find_starts(text):
            i = bisect_right(starts, position) - 1
            # A break between two characters of a traced token would break that.
            first = ends[i] if i >= 0 and ends[i] > position else position + 1
            if first < position + self._guarded.match_length(text, position):
                breaks.add(first)
        return insert(text, [*((position, BREAK) for position in breaks), *marks])
