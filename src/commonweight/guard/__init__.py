"""The charter at run time: compiled to heads, applied to what comes in and to what streams out."""

from commonweight.guard.bundle import DEFAULT, Bundle, BundleError
from commonweight.guard.guard import Guard, Screening
from commonweight.guard.heard import Heard, heard
from commonweight.guard.judge import Judge, JudgeError, Question
from commonweight.guard.verdict import Findings, Verdict

__all__ = [
    "DEFAULT",
    "Bundle",
    "BundleError",
    "Findings",
    "Guard",
    "Heard",
    "Judge",
    "JudgeError",
    "Question",
    "Screening",
    "Verdict",
    "heard",
]
