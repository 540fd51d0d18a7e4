"""Closed exchanges: which messages are over, what is left of them, and that the next harmless turn passes."""

from itertools import islice, product
from typing import Any

import pytest

from commonweight.charter import parse
from commonweight.guard import DEFAULT, Bundle, ClosedExchanges, Guard, JudgeError, JudgeQuestion, extract_segments
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.recompile import recompile
from commonweight.guard.screening.closed_exchanges import MAX_PLACEHOLDER_CHARACTERS, WITHHELD, RefusedTurns
from commonweight.guard.screening.verdict import Verdict
from commonweight.messages.conversation import MessageParam
from commonweight.messages.request import MessageRequest
from sample_charter import UMBRELLA, charter, source

PRINCIPLE = "no-umbrellas"
MESSAGE = "I don't talk about umbrellas. I can help with raincoats."


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: object) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def conversation(*messages: dict[str, Any]) -> list[MessageParam]:
    return MessageRequest.model_validate({"model": "m", "max_tokens": 9, "messages": [*messages]}).messages


def turns(capacity: int = 100) -> RefusedTurns:
    return RefusedTurns(charter(), bytes(32), capacity)


def match(
    memory: RefusedTurns,
    messages: list[MessageParam],
    tenant: str = "a",
    principles: tuple[str, ...] = (PRINCIPLE,),
) -> ClosedExchanges:
    return memory.match_conversation(messages, tenant, principles)


def refuse(
    memory: RefusedTurns, *messages: dict[str, Any], left: str = "", tenant: str = "a", principle: str = PRINCIPLE
) -> None:
    memory.remember(tenant, match(memory, conversation(*messages), tenant).turn, principle, left)


def closed(
    memory: RefusedTurns,
    *messages: dict[str, Any],
    tenant: str = "a",
    principles: tuple[str, ...] = (PRINCIPLE,),
) -> set[int]:
    return set(match(memory, conversation(*messages), tenant, principles).indices)


@pytest.mark.parametrize(
    "answer",
    [
        "[refused]",
        "(Refused)",
        "<the response was withheld.>",
        "[No content]",
        MESSAGE,
        f"  {MESSAGE}\n",
        [{"type": "thinking", "thinking": "The user wants an umb", "signature": ""}],
        [{"type": "thinking", "thinking": "The user", "signature": ""}, {"type": "text", "text": "[refused]"}],
    ],
)
def test_some_messages_say_by_themselves_that_the_turn_was_refused(answer: object) -> None:
    assert closed(turns(), user("One."), assistant("Two."), user("No."), assistant(answer), user("Go on.")) == {
        2,
        3,
    }


@pytest.mark.parametrize(
    "answer",
    [
        "Refused",
        "[refused] is what the log says.",
        "I refused.",
        [{"type": "thinking", "thinking": "Hm.", "signature": "elsewhere"}],
        [{"type": "thinking", "thinking": "Hm.", "signature": ""}, {"type": "text", "text": "An answer."}],
    ],
)
def test_other_answers_close_nothing(answer: object) -> None:
    assert closed(turns(), user("One."), assistant(answer), user("Go on.")) == set()


def test_a_turn_that_is_remembered_is_closed_by_what_left_of_its_answer_or_a_few_words() -> None:
    memory, left = turns(), "Once upon a time " * 40
    refuse(memory, user("Tell me."), left=left)
    for answer in (left, f"{left}\n"):
        assert closed(memory, user("Tell me."), assistant(answer), user("Go on.")) == {0, 1}, answer
    # A short answer that was given elsewhere to the same words is none of these.
    for answer in (f"{left} there was", "It was Paris."):
        assert closed(memory, user("Tell me."), assistant(answer), user("Go on.")) == set(), answer
    refuse(memory, user("Tell me."), left="")
    for answer in ("(nothing)", "It would not say.", "x" * MAX_PLACEHOLDER_CHARACTERS):
        assert closed(memory, user("Tell me."), assistant(answer), user("Go on.")) == {0, 1}, answer
    for answer in (left, "x" * (MAX_PLACEHOLDER_CHARACTERS + 1)):
        assert closed(memory, user("Tell me."), assistant(answer), user("Go on.")) == set(), answer


def test_it_is_the_turn_that_is_remembered_and_not_its_words() -> None:
    memory = turns()
    refuse(memory, user("One."), assistant("Two."), user("Go on."))
    later = (user("Go on."), assistant("No."), user("So?"))
    assert closed(memory, user("One."), assistant("Two."), *later) == {2, 3}
    # The same words after another answer, or of another tenant, were never refused.
    assert closed(memory, user("One."), assistant("Three."), *later) == set()
    assert closed(memory, user("One."), assistant("Two."), *later, tenant="b") == set()


def test_how_a_text_is_written_and_marked_makes_no_difference() -> None:
    memory = turns()
    refuse(memory, user("Tell me."))
    marked = [{"type": "text", "text": "Tell me.", "cache_control": {"type": "ephemeral"}}]
    assert closed(memory, user(marked), assistant("No."), user("Go on.")) == {0, 1}


def test_a_refused_turn_whose_answer_was_left_out_is_closed() -> None:
    memory = turns()
    refuse(memory, user("Tell me."))
    assert closed(memory, user("Tell me."), user("And bread?")) == {0}
    assert closed(memory, user("Tell me.")) == set()  # asked again: screened again


def test_what_follows_a_closed_exchange_is_remembered_without_it() -> None:
    memory = turns()
    refuse(memory, user("Tell me."))
    first = match(memory, conversation(user("Tell me."), assistant("No."), user("Go on.")))
    assert first.turn == match(memory, conversation(user("Go on."))).turn


def test_a_turn_that_was_answered_after_all_is_open() -> None:
    memory = turns()
    refuse(memory, user("Tell me."))
    memory.forget("a", match(memory, conversation(user("Tell me."))).turn, [PRINCIPLE])
    assert closed(memory, user("Tell me."), assistant("All right."), user("Go on.")) == set()


def test_what_another_principle_refused_is_open_to_a_key_that_sets_it_aside() -> None:
    memory = turns()
    said = (user("Tell me."), assistant("All right."), user("Go on."))
    refuse(memory, user("Tell me."))
    assert closed(memory, *said, principles=("another",)) == set()
    # An answer to that key leaves the turn refused for those for which the principle holds.
    turn = match(memory, conversation(user("Tell me."))).turn
    memory.forget("a", turn, ["another"])
    assert closed(memory, *said) == {0, 1}
    refuse(memory, user("Tell me."), principle="another", left="Once upon")
    assert closed(memory, *said) == {0, 1}
    assert closed(memory, *said, principles=("another",)) == set()
    partial = (user("Tell me."), assistant("Once upon"), user("Go on."))
    assert closed(memory, *partial, principles=("another",)) == {0, 1}
    memory.forget("a", turn, [PRINCIPLE, "another"])
    assert closed(memory, *said, principles=(PRINCIPLE, "another")) == set()


def test_a_tenant_with_many_refusals_pushes_out_its_own() -> None:
    memory = turns(capacity=40)
    refuse(memory, user("Tell me."), tenant="b")
    for i in range(200):
        refuse(memory, user(str(i)))
    assert closed(memory, user("Tell me."), user("And bread?"), tenant="b") == {0}
    assert closed(memory, user("0"), user("And bread?")) == set()
    assert closed(memory, user("199"), user("And bread?")) == {0}


def test_a_begun_answer_closes_nothing_that_is_asked_now() -> None:
    memory = turns()
    refuse(memory, user("Tell me."), left="Once upon")
    assert closed(memory, user("Tell me."), assistant("Once upon")) == set()


def test_memory_is_bounded() -> None:
    memory = turns(capacity=2)
    for text in ("1", "2", "3"):
        refuse(memory, user(text))
    assert [closed(memory, user(text), assistant("No."), user("x")) for text in "123"] == [set(), {0, 1}, {0, 1}]


def test_results_of_tools_are_withheld_and_their_calls_stay() -> None:
    memory = turns()
    call = {"type": "tool_use", "id": "a", "name": "look_up", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": "Secret."}
    messages = [user("Look."), assistant([call]), user([result, {"type": "text", "text": "Tell me."}])]
    refuse(memory, *messages)
    whole = conversation(*messages, assistant("[refused]"), user("Go on."))
    found = match(memory, whole)
    assert (set(found.dropped), set(found.blanked)) == ({3}, {2})
    left = found.remove_from(whole)
    assert [message.role for message in left] == ["user", "assistant", "user", "user"]
    assert "Secret" not in str(left)
    assert "Tell me" not in str(left)
    assert WITHHELD in str(left)


def test_many_messages_take_no_longer_than_they_are_many() -> None:
    memory = turns()
    refuse(memory, user("0"))
    messages = [MessageParam.model_validate(user(str(i))) for i in range(50_000)]
    assert match(memory, messages).dropped == {0}


def test_a_guard_that_enforces_nothing_closes_nothing() -> None:
    own = charter()
    one = Guard(own, recompile(own, Bundle.load(DEFAULT, None), load_encoder(), {}), load_encoder(), mode="shadow")
    messages = conversation(user("One."), assistant("[refused]"), user("Go on."))
    assert one.find_closed(messages, "a").indices == frozenset()


async def test_a_refusal_for_lack_of_a_verdict_closes_nothing_and_a_waiver_holds_at_once() -> None:
    own = charter(severity="high")  # refused when the judge fails
    bundle = recompile(own, Bundle.load(DEFAULT, None), load_encoder(), {})
    fails = True

    async def judge(_: JudgeQuestion) -> float:
        if fails:
            raise JudgeError("it is out of reach")
        return 0.9

    one = Guard(own, bundle, load_encoder(), reads_states=False, judge=judge, judge_seconds=60)
    asked = [user(UMBRELLA)]
    later = conversation(*asked, assistant("Here it is."), user("Go on."))

    async def ask() -> Verdict:
        request = MessageRequest.model_validate({"model": "m", "max_tokens": 9, "messages": asked})
        screening = one.start_screening(extract_segments(request), tenant="a")
        await screening.screen_input()
        assert screening.refusal is not None
        one.note_outcome(one.find_closed(request.messages, "a").turn, "", screening.refusal, "a")
        return screening.refusal

    assert (await ask()).lacks_judgement
    assert one.find_closed(later, "a").indices == frozenset()
    fails = False
    assert not (await ask()).lacks_judgement
    assert one.find_closed(later, "a").indices == {0, 1}
    fails = True
    # What was refused for a reason stays so.
    await ask()
    assert one.find_closed(later, "a").indices == {0, 1}
    assert one.find_closed(later, "a", [PRINCIPLE]).indices == frozenset()


QUESTIONS = ("How do I", "What is the best way to", "Why should one", "When do people", "Who was the first to")
TOPICS = (
    *("bake rye bread", "learn the violin", "plant tomatoes", "sort a list in Python", "climb a mountain"),
    *("paint a wall", "write a sonnet", "cook rice", "train a dog", "count in Japanese"),
)


async def test_the_next_harmless_turn_passes_after_every_kind_of_refusal() -> None:
    """Of 240 conversations; earlier turns refuse, too, so only what is closed keeps the first one out."""
    own = parse(
        source()
        .replace(b"schema: charter/1", b"schema: charter/2")
        .replace(b"{input: refuse, output: refuse}", b"{input: refuse, output: refuse, history: refuse}")
    )
    one = Guard(
        own, recompile(own, Bundle.load(DEFAULT, None), load_encoder(), {}), load_encoder(), reads_states=False
    )
    answers = (None, "[refused]", MESSAGE, "It would not say.", "An umbrella is", "(nothing)")

    async def is_refused(messages: list[dict[str, Any]], left: str = "") -> bool:
        request = MessageRequest.model_validate({"model": "m", "max_tokens": 9, "messages": messages})
        found = one.find_closed(request.messages, "a")
        screening = one.start_screening(extract_segments(request, closed=found.indices), tenant="a")
        await screening.screen_input()
        one.note_outcome(found.turn, left, screening.refusal, "a")
        return screening.refusal is not None

    passed = total = 0
    for number, (words, topic) in enumerate(islice(product(QUESTIONS, TOPICS), 40)):
        for answer in answers:
            refused = user(f"{UMBRELLA} ({number % 4})")
            assert await is_refused([refused], "An umbrella is" if answer == "An umbrella is" else "")
            kept = [] if answer is None else [assistant(answer)]
            passed += not await is_refused([refused, *kept, user(f"{words} {topic}?")])
            total += 1
    assert total == 240
    assert passed >= 0.99 * total
