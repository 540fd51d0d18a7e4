"""Answers that are held to a grammar: what they may be, how likely each is, and what they cost."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driving import STARTER_NOISE, Driver, Machine, guessing, job, probed, words
from llguidance import LLMatcher
from outcomes import GREEDY, Outcome, starter_tokenizer
from reference import Reference

from commonweight.engines import grammars
from commonweight.engines.contract import Job, Sampling
from commonweight.engines.grammars import GrammarError, GrammarMatcher
from commonweight.engines.llama.model.native import LlamaBatch
from commonweight.engines.llama.scheduler import planner as plan

pytest_plugins = "machines"

ENDS = [2, 0]
"""Of the starter model."""
END = 2
"""Of the tiny ones, whose other tokens are bytes."""
TINY_NOISE = 0.1

FREE = "TEXT: /(.|\\n)*/\n"
SPACING = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
VISIT = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "by": {"enum": ["train", "plane", "bicycle"]},
    },
    "required": ["city", "days", "by"],
    "additionalProperties": False,
}
JSON = "start: %json " + json.dumps(VISIT | {"x-guidance": SPACING})
TIGHT = "start: %json " + json.dumps(VISIT | {"x-guidance": {"whitespace_flexible": False}})
"""For the tiny models, in whose vocabulary llama.cpp finds no space."""


def held(tokens: list[int], grammar: str, max_tokens: int = 90, **options: Any) -> Job:
    """A job of the tiny models."""
    return job(tokens, max_tokens, **{"grammar": grammar, "stop_ids": [END]} | options)


def asked(question: str, grammar: str, max_tokens: int = 90, **options: Any) -> Job:
    """A job of the starter model."""
    tokens = starter_tokenizer().encode(question)
    return job(tokens, max_tokens, **{"grammar": grammar, "stop_ids": ENDS} | options)


def said(outcome: Outcome) -> str:
    """The starter model's answer, without its end."""
    tokens = outcome.tokens[:-1] if outcome.finish.reason == "stop" else outcome.tokens
    return b"".join(map(starter_tokenizer().decode, tokens)).decode(errors="replace")


def spelled(outcome: Outcome) -> str:
    """A tiny model's answer, without its end."""
    tokens = outcome.tokens[:-1] if outcome.finish.reason == "stop" else outcome.tokens
    # Other than bytes there are three special tokens, of which "<unk>" counts as text.
    return b"".join(bytes([token - 3]) if token > 2 else b"<unk>" for token in tokens).decode(errors="replace")


# What comes out


def is_visit(outcome: Outcome) -> None:
    value = json.loads(said(outcome))
    assert json.dumps(value, ensure_ascii=False) == said(outcome) or "\\" in said(outcome)
    assert list(value) == ["city", "days", "by"]
    assert len(value["city"]) <= 20
    assert 1 <= value["days"] <= 9
    assert value["by"] in ("train", "plane", "bicycle")


def is_one_of(*options: str) -> Callable[[Outcome], None]:
    def check(outcome: Outcome) -> None:
        assert said(outcome) in options

    return check


def matches(pattern: str) -> Callable[[Outcome], None]:
    def check(outcome: Outcome) -> None:
        assert re.fullmatch(pattern, said(outcome))

    return check


CALL = f"""
start: opened call | TEXT
opened[lazy]: TEXT "<tool_call>"
call: "{{\\"name\\": \\"visit\\", \\"arguments\\": " input "}}</tool_call>"
input: %json {json.dumps(VISIT | {"x-guidance": SPACING})}
{FREE}"""


def is_text_and_perhaps_a_call(outcome: Outcome) -> None:
    _, opened, call = said(outcome).partition("<tool_call>")
    head, tail = '{"name": "visit", "arguments": ', "}</tool_call>"
    if not opened:
        return
    if outcome.finish.reason == "stop":
        assert call.startswith(head)
        assert call.endswith(tail)
        assert list(json.loads(call.removesuffix("</tool_call>"))["arguments"]) == ["city", "days", "by"]
    else:
        assert call.startswith(head[: len(call)])


THINKING, THOUGHT = 3, 1
"""Special tokens of the starter model."""
BUDGET = f"start: <[{THINKING}]> reasoning <[{THOUGHT}]> /[0-9]{{1,4}}/\nreasoning[max_tokens=8]: TEXT\n{FREE}"


def kept_its_budget(outcome: Outcome) -> None:
    first, *reasoning = outcome.tokens[: outcome.tokens.index(THOUGHT)]
    assert first == THINKING
    assert len(reasoning) <= 8
    answer = outcome.tokens[outcome.tokens.index(THOUGHT) + 1 : -1]
    assert re.fullmatch(rb"[0-9]{1,4}", b"".join(map(starter_tokenizer().decode, answer)))


def is_a_row_of_specials(outcome: Outcome) -> None:
    assert outcome.tokens[:-1] in ([1, 5, 9], [1, 5, 7])


FORMS: dict[str, tuple[str, Callable[[Outcome], None]]] = {
    "a schema": (JSON, is_visit),
    "a pattern": ("start: /[a-f]{3,6}-[0-9]{2}/", matches("[a-f]{3,6}-[0-9]{2}")),
    "alternatives": ('start: "yes" | "no" | "maybe not"', is_one_of("yes", "no", "maybe not")),
    "a call, if any": (CALL, is_text_and_perhaps_a_call),
    "a call": (CALL.replace(" | TEXT", ""), is_text_and_perhaps_a_call),
    "a budget": (BUDGET, kept_its_budget),
    "special tokens": ("start: <[1]> <[5]> (<[9]> | <[7]>)", is_a_row_of_specials),
}
CALLED = """Where to?
<tool_call>{"name": "visit", "arguments": {"city": "Rome", "days": 3, "by": "train"}}</tool_call>
"""
CALLED = CALLED * 2 + "Where to?\n"
SAMPLINGS = [
    GREEDY,
    *(Sampling(seed=seed) for seed in range(3)),
    *(Sampling(temperature=1.5, seed=seed) for seed in range(3)),
    Sampling(top_k=20, seed=1),
    Sampling(temperature=1.5, top_p=0.8, seed=1),
    Sampling(temperature=1.5, top_k=50, min_p=0.01, seed=1),
]


@pytest.mark.parametrize("form", FORMS)
def test_answers_have_the_form_that_is_asked_for(starter: Machine, form: str) -> None:
    grammar, check = FORMS[form]
    is_open = "call" in form
    outcomes = guessing(starter).run(
        *(asked(CALLED, grammar, 60 if is_open else 90, sampling=sampling) for sampling in SAMPLINGS)
    )
    for outcome in outcomes:
        outcome.check_order()
        assert is_open or outcome.finish.reason == "stop"
        check(outcome)
    if is_open:
        assert said(outcomes[0]).startswith("<tool_call>{")
        assert outcomes[0].finish.reason == "stop"


def test_free_text_is_what_it_would_have_been(starter: Machine) -> None:
    free, open_to_calls = (
        job(
            starter_tokenizer().encode("Once upon a time"), 40, stop_ids=ENDS, sampling=Sampling(seed=5), **options
        )
        for options in ({}, {"grammar": CALL})
    )
    one, other = (starter.drive().run(wanted)[0].tokens for wanted in (free, open_to_calls))
    assert one == other


# How likely it is


@pytest.fixture(scope="module")
def reference(tiny_path: Path) -> Iterator[Reference]:
    reference = Reference(tiny_path, 256)
    yield reference
    reference.close()


PROMPT = words(20)


def masked(reference: Reference, tokens: list[int], allowed: list[int]) -> dict[int, float]:
    """What follows the prompt and these tokens, by probability, if only some tokens are allowed."""
    logprobs = reference.read(PROMPT + tokens, len(PROMPT) + len(tokens) - 1)[0][-1]
    weights = np.exp(logprobs[allowed])
    return dict(zip(allowed, (weights / weights.sum()).tolist(), strict=True))


@pytest.mark.parametrize(("drafts", "cuts"), [(0, {}), (16, {}), (0, {"top_k": 259})])
def test_answers_are_as_likely_as_the_model_finds_them(
    machine: Machine, reference: Reference, drafts: int, cuts: dict[str, Any]
) -> None:
    letters = [3 + byte for byte in b"abcde"]
    expected: dict[tuple[int, ...], float] = {}
    for first, chance in masked(reference, [], letters).items():
        # The end is weighed against what could follow.
        for second, then in masked(reference, [first], [END, *letters]).items():
            expected[(first, second) if second == END else (first, second, END)] = chance * then
    driver = machine.drive(drafts=drafts)
    count = 2000
    outcomes = driver.run(
        *(held(PROMPT, "start: /[a-e]{1,2}/", sampling=Sampling(seed=seed, **cuts)) for seed in range(count))
    )
    counted = Counter(tuple(outcome.tokens) for outcome in outcomes)
    assert set(counted) <= set(expected)
    # Total variation. As many draws from 30 answers are off by less than 0.05 in the mean.
    assert sum(abs(counted[answer] / count - chance) for answer, chance in expected.items()) / 2 < 0.08


def test_alternatives_are_as_likely_as_their_beginnings(machine: Machine, reference: Reference) -> None:
    expected = masked(reference, [], [3 + byte for byte in b"ynm"])
    count = 2000
    grammar = 'start: "yes" | "no" | "maybe"'
    outcomes = machine.drive().run(*(held(PROMPT, grammar, sampling=Sampling(seed=seed)) for seed in range(count)))
    counted = Counter(spelled(outcome) for outcome in outcomes)
    assert sum(abs(counted[word] / count - expected[3 + ord(word[0])]) for word in ("yes", "no", "maybe")) < 0.05
    assert counted.total() == counted["yes"] + counted["no"] + counted["maybe"]


@pytest.mark.parametrize("options", [{}, {"want_logprobs": True}])
def test_a_cold_answer_takes_the_likeliest_of_what_is_allowed(
    machine: Machine, reference: Reference, options: dict[str, Any]
) -> None:
    (outcome,) = machine.drive().run(held(PROMPT, "start: /[a-e]{12}/", **options))
    for i, token in enumerate(outcome.tokens[:-1]):
        chances = masked(reference, outcome.tokens[:i], [3 + byte for byte in b"abcde"])
        assert chances[token] > max(chances.values()) * (1 - TINY_NOISE)


def test_log_probabilities_are_those_of_the_model_without_a_grammar(
    machine: Machine, reference: Reference
) -> None:
    wanted = held(PROMPT, TIGHT, sampling=Sampling(seed=1), want_logprobs=True)
    (outcome,) = machine.drive().run(wanted)
    cold, _ = reference.read(PROMPT + outcome.tokens, len(PROMPT) - 1)
    expected = [cold[i, token] for i, token in enumerate(outcome.tokens)]
    assert outcome.logprobs == pytest.approx(expected, abs=TINY_NOISE)


# What there is no choice about


def without_noise(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make logits depend on the last token and nothing else: what is drawn is the same in batches of any shape."""
    table = np.random.default_rng(0).normal(0, 2, (machine.model.vocabulary_size,) * 2).astype(np.float32)
    last = np.zeros(0, np.int32)
    compute = machine.model.decode

    def remember(batch: LlamaBatch) -> None:
        nonlocal last
        compute(batch)
        last = batch._token

    monkeypatch.setattr(machine.model, "decode", remember)
    monkeypatch.setattr(machine.model, "get_logits", lambda row: table[last[row]])
    return machine


@pytest.fixture
def exact(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return without_noise(machine, monkeypatch)


@pytest.fixture
def never_forced(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, everything is drawn."""
    return lambda: monkeypatch.setattr(GrammarMatcher, "_find_forced_tokens", lambda _: [])


def test_what_is_forced_costs_no_step(machine: Machine) -> None:
    driver = machine.drive()
    (outcome,) = driver.run(held(PROMPT, 'start: "abcdefgh"'))
    assert spelled(outcome) == "abcdefgh"
    # The prompt brings the first letter, and one step the others and the end, which alone is drawn.
    stats = driver.scheduler.stats
    assert (driver.scheduler._batch.rows, driver.scheduler._batch.outputs) == (8, 1)
    assert (stats.steps, stats.forced_tokens, stats.generated_tokens) == (2, 7, 9)
    assert (stats.drafted_tokens, stats.accepted_tokens) == (0, 0)


def test_forcing_changes_nothing_but_the_number_of_steps(
    starter: Machine, never_forced: Callable[[], None]
) -> None:
    wanted = asked(CALLED, CALL.replace(" | TEXT", ""))
    driver = starter.drive()
    (outcome,) = driver.run(wanted)
    stats = driver.scheduler.stats
    assert stats.forced_tokens > 10
    assert stats.steps == len(outcome.tokens) - stats.forced_tokens
    never_forced()
    driver = starter.drive()
    assert driver.run(wanted)[0].tokens == outcome.tokens
    assert driver.scheduler.stats.steps == len(outcome.tokens)


def test_forcing_where_states_cannot_be_cut(
    snapshotting: Machine, never_forced: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = without_noise(snapshotting, monkeypatch)
    jobs = [held(words(20, seed), TIGHT) for seed in range(6)]
    driver = exact.drive()
    forced = driver.run(*jobs)
    assert driver.scheduler.stats.forced_tokens > 100
    never_forced()
    drawn = exact.drive().run(*jobs)
    assert [outcome.tokens for outcome in forced] == [outcome.tokens for outcome in drawn]


@pytest.mark.parametrize("most", [0, 1, 3])
def test_little_room_for_what_is_forced(exact: Machine, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    jobs = [held(words(20, seed), TIGHT, sampling=Sampling(seed=seed)) for seed in range(6)]
    expected = exact.drive().run(*jobs)
    monkeypatch.setattr(plan, "MAX_DRAFT_ROWS", most)
    driver = exact.drive()
    outcomes = driver.run(*jobs)
    assert [outcome.tokens for outcome in outcomes] == [outcome.tokens for outcome in expected]
    assert bool(driver.scheduler.stats.forced_tokens) == bool(most)


@pytest.mark.parametrize("most", [0, 1, 2, 5, 9, 10])
def test_the_limit_within_what_is_forced(machine: Machine, most: int) -> None:
    (outcome,) = machine.drive().run(held(PROMPT, 'start: "abcdefghij"', most))
    assert spelled(outcome) == "abcdefghij"[:most]
    assert outcome.finish.reason == "length"


def test_the_limit_where_states_cannot_be_cut(snapshotting: Machine) -> None:
    (outcome,) = snapshotting.drive().run(held(PROMPT, 'start: "abcdefghij"', 5))
    assert spelled(outcome) == "abcde"
    (again,) = snapshotting.drive().run(held(PROMPT + outcome.tokens, 'start: "fgh"', 5))
    assert spelled(again) == "fgh"


def test_scores_and_log_probabilities_of_what_is_forced(machine: Machine, tiny_path: Path) -> None:
    plain = probed(PROMPT)
    assert plain.probe
    wanted = held(PROMPT, 'start: /[ab]/ "cdefg" /[hi]/', probe=plain.probe, want_logprobs=True)
    driver = machine.drive()
    (outcome,) = driver.run(wanted)
    assert driver.scheduler.stats.forced_tokens == 5
    reference = Reference(tiny_path, 64, plain.probe)
    cold, scores = reference.read(PROMPT + outcome.tokens, len(PROMPT) - 1)
    reference.close()
    expected = [cold[i, token] for i, token in enumerate(outcome.tokens)]
    assert outcome.logprobs == pytest.approx(expected, abs=TINY_NOISE)
    assert outcome.scores(plain.probe.heads) == pytest.approx(scores[:-1], abs=0.1 * float(scores.std()))


# Where it may end


@pytest.mark.parametrize("seed", range(20))
def test_stop_tokens_come_only_where_the_grammar_may_end(machine: Machine, seed: int) -> None:
    grammar, sampling = "start: /[a-c]{3,5}/", Sampling(temperature=1.5, seed=seed)
    # Ends are the job's, not the model's: an ordinary token will do, and the model's own is not one.
    (outcome,) = machine.drive().run(held(PROMPT, grammar, stop_ids=[70, 1], sampling=sampling))
    assert outcome.finish.reason == "stop"
    assert outcome.tokens[-1] in (70, 1)
    assert re.fullmatch("[a-c]{3,5}", spelled(outcome))


def test_nothing_is_forced_where_it_may_end(machine: Machine) -> None:
    driver = machine.drive()
    outcomes = driver.run(
        *(held(PROMPT, 'start: "a" ("bcdef")?', sampling=Sampling(temperature=5, seed=i)) for i in range(40))
    )
    assert {spelled(outcome) for outcome in outcomes} == {"a", "abcdef"}
    assert driver.scheduler.stats.forced_tokens == 4 * sum(len(outcome.tokens) == 7 for outcome in outcomes)


def test_each_kind_of_end_is_as_likely_as_the_model_finds_it(machine: Machine, reference: Reference) -> None:
    ends = [1, 2, 70]
    (a,) = [3 + byte for byte in b"a"]
    expected = masked(reference, [a], ends)
    count = 1500
    outcomes = machine.drive().run(
        *(held(PROMPT, 'start: "a"', stop_ids=ends, sampling=Sampling(seed=seed)) for seed in range(count))
    )
    counted = Counter(outcome.tokens[-1] for outcome in outcomes)
    assert sum(abs(counted[end] / count - chance) for end, chance in expected.items()) / 2 < 0.05


def test_a_stop_token_that_the_grammar_names(machine: Machine, snapshotting: Machine) -> None:
    grammar = f'start: "ab" <[{END}]> "cd"'
    for each in (machine, snapshotting):
        (outcome,) = each.drive().run(held(PROMPT, grammar))
        assert (spelled(outcome), outcome.tokens[-1]) == ("ab", END)
        # Where it is no stop token, it is one of the answer's.
        (outcome,) = each.drive().run(held(PROMPT, grammar, stop_ids=[1]))
        assert outcome.tokens == [3 + ord("a"), 3 + ord("b"), END, 3 + ord("c"), 3 + ord("d"), 1]


def test_an_answer_may_be_empty(machine: Machine) -> None:
    (outcome,) = machine.drive().run(held(PROMPT, 'start: ""'))
    assert outcome.tokens == [END]


# In company


def mixed() -> list[Job]:
    """Jobs with grammars and without, of all temperatures."""
    forms = ["start: /[a-e]{3,40}/", TIGHT, 'start: ("ab" /[cd]/ "ef")+', f"start: TEXT\n{FREE}", None]
    samplings = [GREEDY, Sampling(temperature=0.5, seed=1), Sampling(seed=2), Sampling(temperature=1.5, seed=3)]
    return [
        job(words(20 + i, i), 40, stop_ids=[END], grammar=form, sampling=sampling)
        for i, (form, sampling) in enumerate(product(forms, samplings))
    ]


def test_jobs_do_not_disturb_each_other(exact: Machine) -> None:
    alone = [exact.drive().run(wanted)[0].tokens for wanted in mixed()]
    together = exact.drive().run(*mixed())
    assert [outcome.tokens for outcome in together] == alone


def test_guesses_change_nothing_but_the_number_of_steps(exact: Machine) -> None:
    plain, driver = exact.drive(), guessing(exact)
    expected, guessed = plain.run(*mixed()), driver.run(*mixed())
    assert [outcome.tokens for outcome in guessed] == [outcome.tokens for outcome in expected]
    stats = driver.scheduler.stats
    assert 0 < stats.accepted_tokens < stats.drafted_tokens
    assert stats.steps < plain.scheduler.stats.steps


def test_guesses_that_a_grammar_does_not_allow_are_not_computed(machine: Machine) -> None:
    guide = machine.grammars.create_matcher("start: /[a-c]{3}/", frozenset([END]), "")
    a, b, d = (3 + byte for byte in b"abd")
    assert guide.validate_tokens([a, b, d, a]) == [a, b]
    assert guide.validate_tokens([d]) == guide.validate_tokens([]) == []
    assert guide.validate_tokens([a, b, a, b]) == [a, b, a]


# What is drawn differs from one kind of processor to another, and how much of it is a copy.
@pytest.mark.parametrize(("sampling", "least"), [(GREEDY, 20), (Sampling(temperature=0.7, seed=3), 4)])
def test_guesses_save_steps_of_what_is_copied(starter: Machine, sampling: Sampling, least: int) -> None:
    names = ["amber", "birch", "cedar", "daisy", "elder", "fern", "garlic", "hazel", "iris", "juniper"]
    schema = {"type": "array", "items": {"type": "string"}, "x-guidance": SPACING}
    wanted = asked(
        f"{json.dumps(names)}\n" * 3,
        "start: %json " + json.dumps(schema),
        60,
        sampling=sampling,
        want_logprobs=True,
    )
    (plain,) = starter.drive().run(wanted)
    driver = guessing(starter)
    (guessed,) = driver.run(wanted)
    assert guessed.tokens == plain.tokens
    assert guessed.logprobs == pytest.approx(plain.logprobs, abs=STARTER_NOISE)
    stats = driver.scheduler.stats
    assert stats.accepted_tokens > least
    assert stats.steps <= len(plain.tokens) - stats.accepted_tokens


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=3), Sampling(temperature=1.5, seed=4)])
def test_a_preempted_job_goes_on_where_it_was(exact: Machine, sampling: Sampling) -> None:
    goes_on(exact, held(PROMPT, TIGHT, sampling=sampling))


def test_a_preempted_job_goes_on_where_states_cannot_be_cut(
    snapshotting: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on(without_noise(snapshotting, monkeypatch), held(PROMPT, TIGHT, sampling=Sampling(seed=4)))


def goes_on(exact: Machine, wanted: Job) -> None:
    """Whichever step of its it is preempted after."""
    driver = exact.drive()
    (expected,) = driver.run(wanted)
    for steps in range(1, driver.scheduler.stats.steps):
        driver = exact.drive()
        driver.submit(wanted)
        driver.step(steps)
        driver.scheduler._preempt(driver.running(0))
        driver.finish()
        assert driver.outcomes[0].tokens == expected.tokens


# What cannot be followed


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("", "Empty grammar"),
        ('start: "abc', "lexer error"),
        ("start: b", 'unknown name: "b"'),
        ("start: /[/", "unclosed character class"),
        ('start: %json {"type": "strin"}', "Invalid type: strin"),
        ("start: <[999999]>", "Token range end too large"),
    ],
)
def test_what_is_no_grammar_is_refused(driver: Driver, grammar: str, reason: str) -> None:
    driver.submit(held(PROMPT, TIGHT))
    with pytest.raises(ValueError, match=r"^the grammar cannot be followed: (.|\n)*" + re.escape(reason)):
        driver.scheduler.submit(1, held(PROMPT, grammar))
    driver.finish()
    assert driver.outcomes[0].is_done


def test_a_grammar_without_an_end_is_refused(driver: Driver) -> None:
    with pytest.raises(GrammarError, match="needs stop tokens"):
        driver.scheduler.submit(0, held(PROMPT, TIGHT, stop_ids=[]))
    with pytest.raises(ValueError, match="a stop token is not in this model's vocabulary"):
        driver.scheduler.submit(0, held(PROMPT, TIGHT, stop_ids=[259]))
    driver.check_idle()


DEAD_END = 'start: "abc" /[de]/ NOTHING\nNOTHING: /fg/ & ~/fg/\n'


@pytest.mark.parametrize("drafts", [0, 16])
def test_an_answer_that_cannot_go_on_fails_alone(machine: Machine, drafts: int) -> None:
    driver = machine.drive(drafts=drafts)
    dead, alive = driver.submit(held(PROMPT, DEAD_END), held(words(30, 2), TIGHT))
    driver.finish()
    assert [run_id for run_id, _ in driver.scheduler.failed] == [dead]
    assert "held to its grammar: no token may follow" in driver.scheduler.failed[0][1]
    assert not driver.outcomes[dead].is_done
    assert json.loads(spelled(driver.outcomes[alive]))
    # What it had computed is there for another try.
    (again,) = driver.run(job(PROMPT + [3 + byte for byte in b"abcd"], 1))
    assert again.cached == len(PROMPT) + 3


@pytest.mark.parametrize("place", [1, 2, 5, 8])
def test_an_answer_that_fails_among_what_is_forced(
    machine: Machine, snapshotting: Machine, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    # Tokens that were computed, but never were part of the answer, are not remembered as such.
    assert fails_after(place, machine, monkeypatch) == len(PROMPT) + place
    # There the end of what was computed can be taken up again, or what came before the answer.
    assert fails_after(place, snapshotting, monkeypatch) == len(PROMPT) + (place if place == 8 else -1)


def fails_after(place: int, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let an answer fail after so many of 8 forced tokens; how much of it is remembered."""
    taken, take = iter([True] * place), GrammarMatcher.accept_token
    driver = machine.drive()
    driver.submit(held(PROMPT, 'start: "abcdefgh"'))
    with monkeypatch.context() as broken:
        broken.setattr(
            GrammarMatcher, "accept_token", lambda guide, token: next(taken, False) and take(guide, token)
        )
        driver.finish()
    assert [run_id for run_id, _ in driver.scheduler.failed] == [0]
    (again,) = driver.run(job([*PROMPT, *(3 + byte for byte in b"abcdefgh"), 5], 1))
    return again.cached


def test_too_complex_grammars_fail(driver: Driver) -> None:
    driver.submit(held(PROMPT, 'start: "x" a\na: "y" a'))
    driver.finish()
    assert "Too many items" in driver.scheduler.failed[0][1]


# How many are kept


def test_grammars_are_compiled_once_a_tenant(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    kept = grammars.GrammarCompiler(machine.model.vocab)
    compile_one = kept._compile

    def note(grammar: str) -> LLMatcher:
        compiled.append(grammar)
        return compile_one(grammar)

    monkeypatch.setattr(kept, "_compile", note)
    monkeypatch.setattr(grammars, "MAX_COMPILED_GRAMMARS", 3)
    a, b, c, d = (f'start: "{letter}"' for letter in "abcd")
    ends = frozenset([END])

    def guide(grammar: str, tenant: str = "") -> GrammarMatcher:
        return kept.create_matcher(grammar, ends, tenant)

    for grammar in (a, b, a, c, a, b, c):
        guide(grammar)
    assert compiled == [a, b, c]
    guide(d)
    assert len(kept._compiled) == 3
    guide(b)
    guide(c)
    assert compiled == [a, b, c, d]
    guide(a)
    guide(a, tenant="other")
    assert compiled == [a, b, c, d, a, a]
    # Guides of one grammar go their own ways.
    one, other = guide(a), guide(a)
    one.sample_token(lambda _: END)
    assert (one.forced, other.forced) == ([], [3 + ord("a")])
