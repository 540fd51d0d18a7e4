"""HellaSwag on the engine itself: contexts are read once, and what does not fit its window is an error."""

import contextlib
from pathlib import Path

import pytest

from commonweight.catalog.starter import find_starter
from commonweight.workshop.evals.hellaswag import Question, run_questions, split_tokens
from commonweight.workshop.evals.ledger import Ledger
from commonweight.workshop.evals.model_server import open_model

pytestmark = pytest.mark.workshop

CONTEXT = "Making tea: " + "A woman fills a kettle with cold water and puts it on the stove. " * 12 + "Then she"
ENDINGS = ["pours it over the leaves.", "kettle of an the.", "blue seven roof under.", "were gravel trousers and."]


async def test_contexts_are_read_once_and_errors_are_counted(tmp_path: Path) -> None:
    starter = find_starter()
    assert starter is not None
    questions = [
        Question("q:0", CONTEXT, ENDINGS, 0),
        Question("q:1", "tea " * 20_000, ENDINGS, 0),
        Question("q:2", "Making tea: Then she", ENDINGS, 1),
    ]
    async with open_model(starter, parallel=1) as assistant:
        with contextlib.closing(Ledger(tmp_path / "samples.jsonl")) as ledger:
            before = assistant.engine.stats.prefilled_tokens
            lines = await run_questions(
                questions, assistant.engine, assistant.tokenize, ledger, parallel=1, report=lambda _line: None
            )
            prefilled = assistant.engine.stats.prefilled_tokens - before
        context = split_tokens(assistant.tokenize, CONTEXT, ENDINGS[0])[1]
    assert [line.error for line in lines] == [None, True, None]
    assert [line.score.get("accuracy by length") for line in lines] == [1, None, 0]
    assert context > 150
    assert 0 < prefilled < 2 * context
