"""What a guard can hold, and what it cannot for lack of heads."""

from dataclasses import replace

from commonweight.charter import DEFAULT as STANDARD
from commonweight.charter import Charter, parse
from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.encoders.multilingual import load_multilingual_encoder
from commonweight.guard.heads.bundle import Manifest
from commonweight.guard.heads.recompile import recompile
from commonweight.guard.screening.coverage import Gap, find_gaps
from sample_charter import source


def umbrellas(applies_to: str) -> Charter:
    return parse(
        source()
        .replace(b"schema: charter/1", b"schema: charter/2")
        .replace(b"{input: refuse, output: refuse}", applies_to.encode())
    )


def standard(**manifest: object) -> tuple[Charter, Bundle]:
    bundle = Bundle.load(DEFAULT, None)
    changed: Manifest = bundle.manifest.model_copy(update=manifest)
    return parse(STANDARD.read_bytes()), replace(bundle, manifest=changed)


def test_the_default_charter_is_held_everywhere_with_states_and_without() -> None:
    charter, bundle = standard()
    for reads_states in (True, False):
        guard = Guard(charter, bundle, load_encoder(), load_multilingual_encoder(), reads_states=reads_states)
        assert list(find_gaps(guard)) == []


def test_without_the_encoder_there_are_fewer_heads() -> None:
    charter, bundle = standard()
    gaps = list(find_gaps(Guard(charter, bundle, None)))
    assert {(gap.place, gap.heads) for gap in gaps} == {("input", ("states", "grams"))}
    gaps = list(find_gaps(Guard(charter, bundle, None, reads_states=False)))
    assert {(gap.place, gap.heads) for gap in gaps} == {("input", ("grams",))}
    gaps = list(find_gaps(Guard(charter, bundle, load_encoder())))
    assert {(gap.place, gap.heads) for gap in gaps} == {("input", ("states", "minilm", "grams"))}


def test_a_bundle_without_heads_on_answers_holds_none() -> None:
    charter, bundle = standard(output={})
    encoders = load_encoder(), load_multilingual_encoder()
    gaps = list(find_gaps(Guard(charter, bundle, *encoders)))
    assert Gap("fraud", "tool_input", ()) in gaps
    assert {gap.place for gap in gaps} == {"output", "thinking", "tool_input"}
    assert list(find_gaps(Guard(charter, bundle, *encoders, mode="shadow"))) == []


def test_a_principle_in_words_is_held_at_all_places_with_the_encoder_and_at_none_without() -> None:
    places = ["input", "output", "thinking", "tool_input", "tool_result", "system", "document", "history", "tools"]
    charter = umbrellas("{" + ", ".join(f"{place}: refuse" for place in places) + "}")
    bundle = recompile(charter, Bundle.load(DEFAULT, None), load_encoder(), {})
    assert list(find_gaps(Guard(charter, bundle, load_encoder(), reads_states=False))) == []
    gaps = list(find_gaps(Guard(charter, bundle, None, reads_states=False)))
    assert [(gap.place, gap.heads) for gap in gaps] == [(place, ()) for place in places]
    assert list(find_gaps(Guard(charter, bundle, None, waived=["no-umbrellas"]))) == []
