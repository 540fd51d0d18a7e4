"""Where principles apply, for charters of both schemas."""

from writing import small

from commonweight.charter import DEFAULT, list_unscreened, parse
from commonweight.charter.places import LATER_PLACES, PLACES, PlaceRule, find_rules

SECOND = ("schema: charter/1", "schema: charter/2")


def test_a_place_that_is_absent_is_not_screened() -> None:
    charter = small(SECOND)
    [principle] = charter.principles
    assert set(find_rules(charter, principle)) == {"input", "output"}
    assert list_unscreened(charter, principle) == [p for p in PLACES if p not in ("input", "output")]


def test_a_charter_of_before_is_in_shadow_at_the_places_that_it_could_not_name() -> None:
    charter = small()
    rules = find_rules(charter, charter.principles[0])
    assert {place: rules[place] for place in LATER_PLACES} == dict.fromkeys(
        LATER_PLACES, PlaceRule("log", "shadow")
    )
    assert list_unscreened(charter, charter.principles[0]) == ["thinking", "tool_input", "tool_result"]


def test_documents_were_results_of_tools() -> None:
    charter = small(("{input: log, output: refuse}", "{tool_result: refuse}"))
    assert find_rules(charter, charter.principles[0])["document"] == PlaceRule("refuse", "enforce")
    assert list_unscreened(charter, charter.principles[0]) == [
        p for p in PLACES if p not in ("tool_result", "document")
    ]


def test_what_is_off_is_screened_nowhere() -> None:
    charter = small(("tier: ethics", "tier: ethics\nmode: off"))
    assert list_unscreened(charter, charter.principles[0]) == list(PLACES)


def test_the_default_names_every_place() -> None:
    charter = parse(DEFAULT.read_bytes())
    assert charter.schema_ == "charter/2"
    named = {place for principle in charter.principles for place in principle.applies_to}
    assert named == set(PLACES)
