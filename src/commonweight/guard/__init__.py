"""Guard: a charter at run time, compiled to heads that screen requests and streamed answers."""

from commonweight.guard.heads.bundle import DEFAULT, Bundle, BundleError
from commonweight.guard.judge.judge import Judge, JudgeError, JudgeQuestion
from commonweight.guard.phrases.scanner import FoundPhrase, PhraseScanner
from commonweight.guard.phrases.screening import PlacedPhrase
from commonweight.guard.screening.answer_positions import AnswerPiece
from commonweight.guard.screening.closed_exchanges import ClosedExchanges
from commonweight.guard.screening.guard import Guard
from commonweight.guard.screening.screening import Screening
from commonweight.guard.screening.verdict import Findings, Verdict
from commonweight.guard.text.segments import Location, Part, Segment, extract_segments

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
