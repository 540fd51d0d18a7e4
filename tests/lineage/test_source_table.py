"""Tables of sources, as the guard's training texts have one."""

import pytest

from commonweight.lineage.digests import LineageError
from commonweight.lineage.provenance import ProvenancePolicy, check_material
from commonweight.lineage.source_table import parse_source_table

HEADER = "name\trepository\trows\tlicence\tuse\tkind\tgenerator\n"
LINES = [
    "a\tr\t10\tMIT (orig somebody)\ttrain\tprompts\tpeople, by commission",
    "b\tr\t20\tMIT (paper repo; no LICENSE file)\ttrain\tprompts\tpeople",
    "c\tr\t30\tMIT\ttrain\tprompts and answers\tprompts: people; answers: a vendor's models; TEST SPLIT",
    "d\tr\t40\tCC-BY-SA-4.0\ttrain\tprompts\tGPT-4, checked by people",
    "e\tr\t50\tMIT\ttest\tprompts\tpeople",
    "f\tr\t60\tApache-2.0\ttrain\tprompts\tpeople and models",
    "g\tr\t70\tMIT\ttrain\tanswers\ta vendor's hosted chat model and open chat models",
    "h\tr\t80\tMIT\ttrain\tprompts\tnot stated",
]
POLICY = ProvenancePolicy(generated_prompts="allow", share_alike="propagate")


def list_blocks(policy: ProvenancePolicy) -> set[tuple[str, str, str]]:
    materials = parse_source_table(HEADER + "\n".join(LINES) + "\n")
    return {
        (decision.source, decision.content, decision.rule)
        for decision in check_material(materials, policy)
        if decision.verdict == "block"
    }


def test_a_table_is_decided_line_by_line() -> None:
    assert list_blocks(POLICY) == {
        ("b", "prompts", "licence"),
        ("c", "prompts", "evaluation-set"),
        ("c", "answers", "evaluation-set"),
        ("c", "answers", "generator"),
        ("g", "answers", "generator"),
    }


def test_a_strict_policy_blocks_more() -> None:
    assert list_blocks(ProvenancePolicy()) - list_blocks(POLICY) == {
        ("d", "prompts", "generated-prompts"),
        ("d", "prompts", "share-alike"),
        ("f", "prompts", "generated-prompts"),
        ("h", "prompts", "generated-prompts"),
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column generator, kind, licence, name, rows, use"),
        ("name\trows\tlicence\tuse\tkind\n", "no column generator"),
        (HEADER + "a\tr\t10\tMIT\ttrain\tprompts\n", "Line 2 .* not as many fields"),
        (HEADER + LINES[0] + "\n" + LINES[0].replace("10", "ten") + "\n", "Line 3 .* number of rows"),
        (HEADER + LINES[0].replace("prompts", "songs") + "\n", "Line 2 .* kind"),
    ],
)
def test_what_is_no_table(text: str, reason: str) -> None:
    with pytest.raises(LineageError, match=reason):
        parse_source_table(text)
