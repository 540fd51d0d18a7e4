"""The charter at run time: compiled to heads, applied to what comes in and to what streams out."""

from commonweight.guard.bundle import DEFAULT, Bundle, BundleError
from commonweight.guard.guard import Guard, Screening
from commonweight.guard.judge import Judge, JudgeError, JudgeQuestion
from commonweight.guard.screened_input import ScreenedInput, extract_input
from commonweight.guard.verdict import Findings, Verdict

__all__ = [
    "DEFAULT",
    "Bundle",
    "BundleError",
    "Findings",
    "Guard",
    "Judge",
    "JudgeError",
    "JudgeQuestion",
    "ScreenedInput",
    "Screening",
    "Verdict",
    "extract_input",
]
