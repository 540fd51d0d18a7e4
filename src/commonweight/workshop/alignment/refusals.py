"""The rule that selection tells refusals by: words of declining in an answer's first sentences.

It selects rows, and must therefore not be what measures a model that was trained on them.
"""

import re

BEGINNING = 240
"""Characters of an answer that are looked at."""
_DECLINING = re.compile(
    r"\bi(?:'m| am)? (?:really |just |simply )?(?:can(?:'t|not| not)|could(?:n't| not)|won't|will not|don't help|"
    r"do not help|don't do|refuse|decline|(?:must|have to) (?:decline|refuse|stop|say no)|unable|"
    r"not (?:able|going|comfortable|willing)|(?:'d|would) rather not)\b"
    r"|\bdoes(?:n't| not) (?:offer|do|help)\b"
    r"|\bi'd rather not\b|\bisn't something i\b|\bnot something i\b"
    r"|\bagainst (?:my|the) (?:guidelines|rules|policy)\b"
    r"|\b(?:sorry|unfortunately|apologi[sz]e)\b[^.!?]{0,40}\b(?:can't|cannot|won't|unable|not able)\b"
    r"|\bas an? (?:ai|language model)\b"
)


def is_refusal(answer: str) -> bool:
    """Whether an answer declines."""
    beginning = answer.lstrip()[:BEGINNING].lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return _DECLINING.search(" ".join(beginning.split())) is not None
