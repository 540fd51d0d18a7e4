"""Guard: a charter at run time, compiled to heads that screen requests and streamed answers."""

from commonweight.guard.bundle import DEFAULT, Bundle, BundleError
from commonweight.guard.guard import Guard
from commonweight.guard.judge import Judge, JudgeError, JudgeQuestion
from commonweight.guard.phrase_scanner import FoundPhrase, PhraseScanner
from commonweight.guard.phrase_screening import PlacedPhrase
from commonweight.guard.screened_input import ScreenedInput, extract_input
from commonweight.guard.screening import Screening
from commonweight.guard.verdict import Findings, Verdict

__all__ = [
    "DEFAULT",
    "Bundle",
    "BundleError",
    "Findings",
    "FoundPhrase",
    "Guard",
    "Judge",
    "JudgeError",
    "JudgeQuestion",
    "PhraseScanner",
    "PlacedPhrase",
    "ScreenedInput",
    "Screening",
    "Verdict",
    "extract_input",
]
