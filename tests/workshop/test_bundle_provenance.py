"""Provenance of bundles: the one that ships is made of what may train it, and names it."""

from pathlib import Path

import pytest

from command import one_line_error, run
from commonweight.guard import DEFAULT, Bundle
from commonweight.guard.heads.bundle import BundleSource
from commonweight.lineage.errors import WorkshopError
from commonweight.lineage.provenance import ProvenancePolicy, check_material
from commonweight.workshop.heads.provenance import read_materials
from commonweight.workshop.heads.sources import load_notes

STARTER = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SHA-256 of the starter's file, which NOTICE names, too."""
POLICY = ProvenancePolicy(generated_prompts="allow", share_alike="propagate")


def write(path: Path, *sources: BundleSource, licence: str | None = "Apache-2.0") -> Path:
    bundle = Bundle.load(DEFAULT, None)
    manifest = bundle.manifest.model_copy(update={"sources": sources, "licence": licence})
    Bundle(manifest, bundle.tensors).save(path, None)
    return path


def test_the_bundle_that_ships_is_made_of_what_may_train_it() -> None:
    manifest = Bundle.load(DEFAULT, None).manifest
    assert manifest.licence == "CC-BY-SA-4.0"
    assert manifest.injection_principle == "injected-orders"
    notes = load_notes()
    assert [one.name for one in manifest.sources if notes.get(one.name, {}).get("role") == "unused"] == []
    assert {one.generator for one in manifest.sources if one.content == "answers"} == {
        f"SmolLM2-135M-Instruct.Q4_1 (sha256 {STARTER})"
    }
    notice = (Path(__file__).parents[2] / "NOTICE").read_text()
    for source in manifest.sources:
        assert source.content == "answers" or f"  {source.name}: " in notice
    decisions = check_material(read_materials(DEFAULT), POLICY)
    assert {decision.verdict for decision in decisions} == {"pass"}
    done = run("provenance", str(DEFAULT), "--generated-prompts", "allow", "--share-alike", "propagate")
    assert done.returncode == 0, done.stdout
    # Without leave for prompts that a model wrote, or for share-alike texts, it does not pass.
    assert run("provenance", str(DEFAULT), "--share-alike", "propagate").returncode == 1
    assert run("provenance", str(DEFAULT), "--generated-prompts", "allow").returncode == 1


def test_answers_of_a_vendor_stop_a_bundle(tmp_path: Path) -> None:
    answers = BundleSource(
        name="a", licence="MIT", rows=3, sha256="0" * 64, generator="ChatGPT", content="answers"
    )
    [decision] = check_material(read_materials(write(tmp_path / "a.safetensors", answers)), POLICY)
    assert (decision.verdict, decision.rule) == ("block", "generator")
    prompts = answers.model_copy(update={"content": "prompts"})
    decisions = check_material(read_materials(write(tmp_path / "a.safetensors", prompts)), POLICY)
    assert {decision.verdict for decision in decisions} == {"pass"}


def test_a_bundle_that_does_not_say_what_wrote_its_sources(tmp_path: Path) -> None:
    path = write(tmp_path / "old.safetensors", licence=None)
    with pytest.raises(WorkshopError, match="does not say which models wrote its sources"):
        read_materials(path)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    done = run("provenance", str(tmp_path / "torn.safetensors"))
    assert one_line_error(done).endswith("is no compiled charter: SafetensorError.")
    done = run("provenance", str(tmp_path / "missing.safetensors"))
    assert one_line_error(done).endswith("there is no such file.")
