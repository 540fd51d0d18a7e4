"""The provenance gate: real cases of data that must stop, and of data that may pass."""

import pytest

from commonweight.lineage.digests import LineageError
from commonweight.lineage.generators import find_generator
from commonweight.lineage.licence_texts import LicenceText, find_contradiction, recognise_licence
from commonweight.lineage.licences import LICENCES, find_licence, fold_licences
from commonweight.lineage.provenance import (
    Content,
    EvaluationSet,
    Material,
    ProvenancePolicy,
    check_material,
    list_generator_licences,
    require_material,
)
from commonweight.lineage.record import Decision

MIT_TEXT = """Copyright (c) 2020 A. Writer

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def material(
    licence: str | None = "MIT",
    generator: str | None = None,
    content: Content = "text",
    source: str = "a source",
    **others: object,
) -> Material:
    return Material(source, content, licence, generator, rows=7, **others)  # type: ignore[arg-type]


def decide(item: Material, **policy: object) -> list[Decision]:
    return list(check_material([item], ProvenancePolicy.model_validate(policy)))


def blocked(item: Material, **policy: object) -> set[str]:
    return {decision.rule for decision in decide(item, **policy) if decision.verdict == "block"}


@pytest.mark.parametrize(
    "licence", [None, "", "unknown", "other", "Proprietary", "MIT (paper repo; no LICENSE file)"]
)
def test_no_known_licence(licence: str | None) -> None:
    assert blocked(material(licence)) == {"licence"}


@pytest.mark.parametrize("licence", ["MIT", "apache-2.0", "CC-BY-4.0", "LicenseRef-Public-Domain", "blessing"])
def test_a_free_licence_passes_with_one_decision(licence: str) -> None:
    (decision,) = decide(material(licence))
    assert (decision.rule, decision.verdict, decision.rows) == ("licence", "pass", 7)


@pytest.mark.parametrize(
    "licence", ["CC-BY-NC-4.0", "LicenseRef-Mistral-Research", "LicenseRef-Mistral-Non-Production"]
)
def test_non_commercial_text_is_for_research_only(licence: str) -> None:
    assert blocked(material(licence)) == {"non-commercial"}
    assert blocked(material(licence), use="research") == set()


def test_no_adaptations() -> None:
    assert blocked(material("CC-BY-ND-4.0"), use="research") == {"adaptations"}


@pytest.mark.parametrize("policy", ["propagate", "attribute", "block"])
def test_share_alike_is_what_the_recipe_decides_and_on_record(policy: str) -> None:
    decisions = decide(material("CC-BY-SA-4.0"), share_alike=policy)
    assert {d.rule: d.verdict for d in decisions}["share-alike"] == ("block" if policy == "block" else "pass")


def test_defaults_are_the_strict_ones() -> None:
    assert blocked(material("CC-BY-SA-4.0")) == {"share-alike"}
    assert blocked(material(generator="SmolLM2-135M-Instruct", content="prompts")) == {"generated-prompts"}
    assert ProvenancePolicy().use == "commercial"


# Names as data sets state them, and whether answers of theirs may train another model.
@pytest.mark.parametrize(
    "generator",
    [
        "GPT-4",
        "gpt-4o-mini",
        "ChatGPT (its repository says so)",
        "text-davinci-003",
        "Claude-3-Opus",
        "gemini-1.5-pro",
        "a vendor's hosted chat model and open chat models (paper; unchecked)",
        "prompts: people; answers: a vendor's models; TEST SPLIT of its set: not for training",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "llama-2-70b-chat",
        "Mistral-Large-2",
        "many models",
        "a language model, which is not stated",
        "unknown",
        "not stated",
    ],
)
def test_answers_that_may_not_train(generator: str) -> None:
    assert blocked(material(generator=generator, content="answers")) == {"generator"}
    assert blocked(material(generator=generator, content="text")) == {"generator"}
    assert blocked(material(generator=generator, content="prompts"), generated_prompts="allow") == set()


@pytest.mark.parametrize(
    ("generator", "licence"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", None),
        ("openai/gpt-oss-20b", None),
        ("Qwen/Qwen3-8B", None),
        ("deepseek-ai/DeepSeek-R1", None),
        ("google/gemma-4-12b", None),
        ("commonweight/tiny", None),
        ("meta-llama/Llama-3.1-405B-Instruct", "LicenseRef-Llama-3.1"),
        ("meta-llama/Llama-4-Maverick", "LicenseRef-Llama-4"),
        ("google/gemma-3-27b-it", "LicenseRef-Gemma"),
    ],
)
def test_answers_that_may_train_and_what_that_asks(generator: str, licence: str | None) -> None:
    assert blocked(material(generator=generator, content="answers")) == set()
    assert list_generator_licences([generator]) == ((licence,) if licence else ())
    assert licence is None or find_licence(licence) is not None


def test_every_licence_that_a_generator_asks_for_is_in_the_table() -> None:
    assert find_generator("a model of nobody") is None
    for name in LICENCES:
        found = find_licence(name.lower())
        assert found is not None
        assert found.id == name
        assert set(found.compatible_with) <= LICENCES.keys()


def test_the_text_of_the_label() -> None:
    assert recognise_licence(MIT_TEXT) == {"MIT"}
    assert find_contradiction("MIT", [LicenceText("LICENSE", MIT_TEXT)]) is None
    assert "the label says Apache-2.0" in str(find_contradiction("Apache-2.0", [LicenceText("LICENSE", MIT_TEXT)]))


# Real packages, in the words that contradict their label.
@pytest.mark.parametrize(
    ("label", "texts", "reason"),
    [
        (  # a wheel of plays
            "MIT",
            [
                ("LICENSE", MIT_TEXT),
                ("schema.json", '"default": "Creative Commons Non-Commercial Share Alike 3.0"'),
            ],
            "schema.json limits commercial use",
        ),
        (  # a corpus of American English
            "MIT",
            [("README", "Distributed with the permission of the copyright holder,\nredistribution permitted.")],
            "gives a permission of its own",
        ),
        (  # lyrics and scripts
            "MIT",
            [("README.md", "considered fair-use, but please don't commercially republish them, or anything")],
            "README.md limits commercial use",
        ),
        (  # a model whose badge and licence file differ
            "MIT",
            [("LICENSE-MODEL", "MiniMax Model License Agreement. You shall not use it for military purposes.")],
            "nothing in LICENSE-MODEL does",
        ),
        ("CC-BY-4.0", [("README", "Released under CC BY-SA 4.0.")], "asks for the same licence"),
        ("CC-BY-4.0", [("README", "You may not redistribute the texts.")], "not republished"),
    ],
)
def test_a_label_that_its_own_text_contradicts(label: str, texts: list[tuple[str, str]], reason: str) -> None:
    item = material(label, texts=tuple(LicenceText(*text) for text in texts))
    (decision,) = [d for d in decide(item, use="research") if d.verdict == "block"]
    assert decision.rule == "licence-text"
    assert reason in decision.reason


def test_evaluation_sets_train_nothing() -> None:
    evaluated = [EvaluationSet("gsm8k", "ab" * 32, frozenset({"r1", "r2"}))]
    same = material(digest="ab" * 32)
    (decision,) = check_material([same], ProvenancePolicy(), evaluated)
    assert (decision.rule, decision.reason) == ("evaluation-set", "it is the evaluation set gsm8k")
    rows = {"a source": frozenset({"r2", "r9"})}
    (decision,) = check_material([material()], ProvenancePolicy(), evaluated, rows)
    assert decision.reason == "1 of its rows are in the evaluation set gsm8k"
    (decision,) = check_material([material()], ProvenancePolicy(), evaluated, {"a source": frozenset({"r9"})})
    assert decision.verdict == "pass"
    assert blocked(material(is_test_split=True)) == {"evaluation-set"}


def test_what_blocks_is_named_with_rows_and_reason() -> None:
    decisions = check_material([material(None, source="a"), material(source="b")], ProvenancePolicy())
    with pytest.raises(
        LineageError, match=r"^a \(7 rows, text\) is blocked by the rule licence: it has no licence\.$"
    ):
        require_material(decisions)
    require_material(decisions[1:])


def test_obligations_fold() -> None:
    folded = fold_licences(["MIT", "CC-BY-4.0", "Apache-2.0", "CC0-1.0"])
    assert folded.licence is None
    assert folded.commercial
    assert folded.attributions == ("Apache-2.0", "CC-BY-4.0", "MIT")
    assert fold_licences(["CC-BY-SA-3.0", "CC-BY-SA-4.0", "MIT"]).licence == "CC-BY-SA-4.0"
    assert fold_licences(["CC-BY-SA-3.0", "MIT"], "attribute").licence is None
    assert fold_licences(["LicenseRef-Llama-3.1", "MIT"]).naming == ("Llama",)
    assert fold_licences(["LicenseRef-Llama-3", "LicenseRef-Llama-4"]).naming == ("Llama", "Llama 3")
    assert any("EU" in sentence for sentence in fold_licences(["LicenseRef-Llama-4"]).sentences)
    assert not fold_licences(["CC-BY-NC-SA-4.0", "CC-BY-NC-4.0"]).commercial


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["MIT", "Sleepycat"], "'Sleepycat' is not known"),
        (["CC-BY-SA-4.0", "GPL-3.0-or-later"], "cannot carry both"),
        (["CC-BY-SA-4.0", "CC-BY-NC-4.0"], "CC-BY-NC-4.0 does not"),
    ],
)
def test_licences_that_cannot_be_met_together(names: list[str], reason: str) -> None:
    with pytest.raises(LineageError, match=reason):
        fold_licences(names)
