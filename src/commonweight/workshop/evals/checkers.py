"""Checkers of IFEval's instructions: those of the lm-eval package, with a sentence splitter that needs no network.

Only the folder ``lm_eval/tasks/ifeval`` is loaded: the packages around it import a whole harness, torch included.
Its modules look for nltk's trained data (``punkt_tab``) and fetch it where it is missing. Here they find
``nltk_data`` beside this module first: Punkt's own algorithm with short lists of abbreviations and of words that
begin sentences, written for this purpose. So counts are the same on every machine. On 1091 passages of technical
English they were those of the trained data in 1074, and 12567 sentences in all instead of 12579. The two differ
after dots in a row, a few single letters (``X.``) and rarer abbreviations.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from commonweight.workshop.evals.errors import EvaluationError

NLTK_DATA = Path(__file__).with_name("nltk_data")
_PACKAGES = "lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"


@dataclass(frozen=True)
class Instructions:
    """A prompt, and what its answer is checked for."""

    prompt: str
    instruction_id_list: list[str]
    kwargs: list[dict[str, Any]]
    key: int = 0


@dataclass(frozen=True)
class Verdict:
    """Which instructions an answer follows, in their order."""

    strict: Sequence[bool]
    loose: Sequence[bool]
    """As strict, or without markup, the first or the last line of the answer."""


def check_answer(instructions: Instructions, answer: str) -> Verdict:
    """Check an answer.

    Raises:
        EvaluationError: the extra is not installed.
    """
    checks = _load_module("utils")
    return Verdict(
        checks.test_instruction_following_strict(instructions, answer).follow_instruction_list,
        checks.test_instruction_following_loose(instructions, answer).follow_instruction_list,
    )


def find_unknown(instruction_ids: Sequence[str]) -> str | None:
    """The first of these instructions that has no checker."""
    known = _load_module("instructions_registry").INSTRUCTION_DICT
    return next((name for name in instruction_ids if name not in known), None)


def count_sentences(text: str) -> int:
    """Count sentences as the checkers do."""
    count: Callable[[str], int] = _load_module("instructions_util").count_sentences
    return count(text)


def _load_module(name: str) -> ModuleType:
    return _load_modules()[name]


@cache
def _load_modules() -> dict[str, ModuleType]:
    spec = importlib.util.find_spec("lm_eval")
    try:
        import nltk

        langdetect = importlib.import_module("langdetect")
    except ImportError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise EvaluationError("IFEval needs what `pip install 'commonweight[evals]'` brings")
    nltk.data.path.insert(0, str(NLTK_DATA))
    langdetect.DetectorFactory.seed = 0  # it draws at random, and says so in its documentation
    before = {name: module for name, module in sys.modules.items() if _is_theirs(name)}
    try:
        folder = Path(next(iter(spec.submodule_search_locations)))
        for name in before:
            del sys.modules[name]
        for name in _PACKAGES:
            package = ModuleType(name)
            package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = package
        return {
            name: importlib.import_module(f"{_PACKAGES[-1]}.{name}")
            for name in ("instructions_util", "instructions_registry", "utils")
        }
    finally:
        # Whoever imports the package itself gets all of it.
        for name in [name for name in sys.modules if _is_theirs(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _is_theirs(module: str) -> bool:
    return module == "lm_eval" or module.startswith("lm_eval.")
