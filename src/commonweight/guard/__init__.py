"""Guard: a charter at run time, compiled to heads that screen requests and streamed answers."""

from commonweight.guard.answer_positions import AnswerPiece
from commonweight.guard.bundle import DEFAULT, Bundle, BundleError
from commonweight.guard.closed_exchanges import ClosedExchanges
from commonweight.guard.guard import Guard
from commonweight.guard.judge import Judge, JudgeError, JudgeQuestion
from commonweight.guard.phrase_scanner import FoundPhrase, PhraseScanner
from commonweight.guard.phrase_screening import PlacedPhrase
from commonweight.guard.screening import Screening
from commonweight.guard.segments import Location, Part, Segment, extract_segments
from commonweight.guard.verdict import Findings, Verdict

__all__ = [
    "DEFAULT",
    "AnswerPiece",
    "Bundle",
    "BundleError",
    "ClosedExchanges",
    "Findings",
    "FoundPhrase",
    "Guard",
    "Judge",
    "JudgeError",
    "JudgeQuestion",
    "Location",
    "Part",
    "PhraseScanner",
    "PlacedPhrase",
    "Screening",
    "Segment",
    "Verdict",
    "extract_segments",
]
