"""Settings of evaluations: what they take, and each sentence about what they do not."""

from typing import Any

import pytest
from pydantic import ValidationError

from commonweight.workshop.evals.settings import EvaluationSettings, HellaSwagSettings, RefusalSettings

IFEVAL = {"task": "ifeval", "dataset": "rows"}
HELLASWAG = {"task": "hellaswag", "dataset": "rows"}
BITS = {"task": "bits_per_byte", "dataset": "rows"}
HARMFUL = {"dataset": "rows", "group": "harmful"}
COMPLIANCE = {"task": "compliance", "datasets": [HARMFUL]}
ANSWER_BITS = {"task": "answer_bits", "dataset": "rows"}
ENDPOINT = {"url": "http://127.0.0.1:8000", "model": "m"}


def make(*tasks: dict[str, Any], **fields: Any) -> EvaluationSettings:
    return EvaluationSettings.model_validate({"tasks": tasks, **fields})


def test_defaults_repeat_and_cover_whole_sets() -> None:
    settings = make(IFEVAL, HELLASWAG, {"task": "refusal", "datasets": [HARMFUL]}, endpoint=None)
    ifeval, hellaswag, refusal = settings.tasks
    assert (ifeval.limit, ifeval.seed, hellaswag.limit, refusal.limit) == (None, 0, None, None)
    assert ifeval.model_dump()["temperature"] == 0
    assert isinstance(hellaswag, HellaSwagSettings)
    assert settings.datasets == ("rows",)


def test_a_set_with_both_kinds_is_named_twice() -> None:
    groups = [HARMFUL, {**HARMFUL, "group": "look-alike"}]
    (task,) = make({"task": "refusal", "datasets": groups}).tasks
    assert isinstance(task, RefusalSettings)
    assert len(task.datasets) == 2


@pytest.mark.parametrize(
    ("tasks", "fields", "sentence"),
    [
        ([], {}, "at least 1 item"),
        ([IFEVAL, IFEVAL], {}, "same task stands twice"),
        ([{"task": "mmlu", "dataset": "rows"}], {}, "does not match any of the expected tags"),
        ([{**IFEVAL, "samples": 2}], {}, "needs a temperature above 0"),
        ([{**IFEVAL, "samples": 0}], {}, "greater than or equal to 1"),
        ([{**IFEVAL, "temperature": 1.5}], {}, "less than or equal to 1"),
        ([{**IFEVAL, "limit": 0}], {}, "greater than or equal to 1"),
        ([{**IFEVAL, "max_tokens": 0}], {}, "greater than or equal to 1"),
        ([{**HELLASWAG, "temperature": 0}], {}, "Extra inputs are not permitted"),
        ([{**IFEVAL, "dataset": "../rows"}], {}, "should match pattern"),
        ([{"task": "ifeval"}], {}, "Field required"),
        ([{**BITS, "context": 8}], {}, "greater than or equal to 16"),
        ([{"task": "refusal", "datasets": [HARMFUL, HARMFUL]}], {}, "stand twice in the refusal task"),
        (
            [{"task": "refusal", "datasets": [{**HARMFUL, "group": g} for g in ("look-alike", "ordinary")]}],
            {},
            "stand twice in the refusal task",
        ),
        ([{"task": "compliance", "datasets": [HARMFUL, HARMFUL]}], {}, "stand twice in the compliance task"),
        ([{**COMPLIANCE, "places": ["chat", "chat"]}], {}, "a place stands twice"),
        ([{**COMPLIANCE, "places": []}], {}, "at least 1 item"),
        ([{**COMPLIANCE, "places": ["letter"]}], {}, "Input should be 'chat', 'tool_result' or 'forced'"),
        (
            [{"task": "compliance", "datasets": [{**HARMFUL, "principles": {"pranks": "No Pranks"}}]}],
            {},
            "should match pattern",
        ),
        ([{"task": "collapse", "dataset": "rows", "words": 7}], {}, "greater than or equal to 8"),
        ([{**ANSWER_BITS, "max_characters": 0}], {}, "greater than or equal to 1"),
        ([ANSWER_BITS], {"endpoint": ENDPOINT}, "no likelihoods"),
        ([HELLASWAG], {"endpoint": ENDPOINT}, "no likelihoods"),
        ([BITS], {"endpoint": ENDPOINT}, "no likelihoods"),
        ([IFEVAL], {"endpoint": {**ENDPOINT, "url": "127.0.0.1:8000"}}, "written like http://"),
        ([IFEVAL], {"endpoint": {**ENDPOINT, "url": "http://me:secret@x.example"}}, "holds no key"),
        ([IFEVAL], {"endpoint": {**ENDPOINT, "key_variable": "sk-secret value"}}, "should match pattern"),
        ([IFEVAL], {"endpoint": {**ENDPOINT, "key": "sk-secret"}}, "Extra inputs are not permitted"),
        ([IFEVAL], {"parallel": 0}, "greater than or equal to 1"),
        ([IFEVAL], {"timeout": 0}, "greater than or equal to 1"),
        ([IFEVAL], {"retries": -1}, "greater than or equal to 0"),
    ],
)
def test_what_is_refused(tasks: list[dict[str, Any]], fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        make(*tasks, **fields)


def test_sets_of_all_tasks_are_named_once() -> None:
    settings = make(COMPLIANCE, {"task": "collapse", "dataset": "plain"}, {**ANSWER_BITS, "dataset": "plain"})
    assert settings.datasets == ("rows", "plain")
    compliance, collapse, _ = settings.tasks
    assert compliance.model_dump()["places"] == ("chat", "tool_result", "forced")
    assert collapse.limit == 200
