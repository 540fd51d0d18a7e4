"""Events that are held back: what is ready leaves in order and whole, at the cost of what leaves."""

from hypothesis import given
from hypothesis import strategies as st

from commonweight.messages.events import ContentBlockDelta, ContentBlockStop, StreamEvent, TextDelta, ThinkingDelta
from commonweight.turn.held_events import HeldEvents


def text(content: str) -> StreamEvent:
    return ContentBlockDelta(index=0, delta=TextDelta(text=content))


def stop() -> StreamEvent:
    return ContentBlockStop(index=0)


def spell(events: list[StreamEvent]) -> str:
    found = ""
    for event in events:
        match event:
            case ContentBlockDelta(delta=TextDelta(text=content) | ThinkingDelta(thinking=content)):
                found += content
            case _:
                found += "|"
    return found


def test_events_leave_up_to_the_text_that_is_held() -> None:
    held = HeldEvents()
    for event in (text("one "), stop(), ContentBlockDelta(index=1, delta=ThinkingDelta(thinking="two")), stop()):
        held.add(event)
    assert spell(held.take_ready(99)) == ""
    assert spell(held.take_ready(5)) == "on"
    assert spell(held.take_ready(3)) == "e |"
    assert spell(held.take_ready(1)) == "tw"
    assert spell(held.take_ready(0)) == "o|"
    held.add(text("three"))
    held.clear()
    assert held.take_ready(0) == []


@given(st.lists(st.tuples(st.sampled_from(["", "a", "bcd", "|"]), st.integers(0, 9)), max_size=20))
def test_nothing_is_lost_or_leaves_too_early(steps: list[tuple[str, int]]) -> None:
    events, left, whole = HeldEvents(), "", ""
    for content, held in steps:
        events.add(stop() if content == "|" else text(content))
        whole += content
        waiting = len(whole[len(left) :].replace("|", ""))
        left += spell(events.take_ready(held))
        assert whole.startswith(left)
        assert len(whole[len(left) :].replace("|", "")) == min(waiting, held)
    assert left + spell(events.take_ready(0)) == whole


def test_events_that_are_held_for_long_are_not_looked_at_again() -> None:
    # A million events are taken at once in the end; work that grows with their square would take days.
    events = HeldEvents()
    newline = text("\n")
    for number in range(1_000_000):
        events.add(newline)
        assert events.take_ready(number + 1) == []
    assert len(events.take_ready(0)) == 1_000_000
