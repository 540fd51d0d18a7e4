"""Evaluation by a server's path, with the starter: whole texts, at their places; a stopped run goes on."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from command import run
from commonweight.engines.settings import EngineSettings
from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.recompile import recompile
from commonweight.runtime.assistant import open_assistant
from commonweight.runtime.data import DataFolder
from commonweight.runtime.errors import UserError
from commonweight.runtime.settings import AssistantSettings
from commonweight.turn.record import TurnRecorder
from commonweight.workshop.heads.evaluate import Evaluator
from commonweight.workshop.heads.kept_scores import KeptScores
from commonweight.workshop.heads.sources import LabelledText
from sample_charter import BREAD, UMBRELLA, charter, source

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WINDOW = 1024


@pytest.fixture
async def evaluator(tmp_path: Path) -> AsyncIterator[Evaluator]:
    encoder = load_encoder()
    guard = Guard(charter(), recompile(charter(), Bundle.load(DEFAULT, None), encoder, {}), encoder)
    recorder = TurnRecorder()
    settings = AssistantSettings(engine=EngineSettings(context=WINDOW, threads=1, cache_disk=0, parallel=2))
    async with open_assistant(settings, data=DataFolder(tmp_path), guard=guard, listeners=[recorder]) as assistant:
        kept = KeptScores(tmp_path / "kept.jsonl", b"k" * 32)
        yield Evaluator(assistant, recorder, kept)
        kept.close()


def rows(texts: Sequence[str], answer: str | None = None) -> list[LabelledText]:
    return [LabelledText(text, is_harmful=True, answer=answer) for text in texts]


async def test_texts_are_read_whole_or_not_at_all(evaluator: Evaluator, tmp_path: Path) -> None:
    long = f"{BREAD} " * 60
    found = await evaluator.score(rows([UMBRELLA, BREAD, long + 8 * UMBRELLA, long * 3, "  \n"]))
    assert [one.outcome.is_read for one in found] == [True, True, True, False, False]
    assert found[0].outcome.is_refused
    assert found[0].outcome.principle == "no-umbrellas"
    assert found[0].outcome.noted == ("no-umbrellas",)
    assert not found[1].outcome.is_refused
    assert found[2].outcome.is_refused, "a principle in prose is looked for in every window of a text"
    assert not any(one.outcome.is_refused for one in found[3:])

    again = await evaluator.score(rows([UMBRELLA]))
    assert again[0].outcome == found[0].outcome
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 5, "it was not scored again"


async def test_answers_are_screened_token_by_token(evaluator: Evaluator) -> None:
    said = "The umbrella was black. She opened the umbrella and repaired the umbrella. " * 6
    found = await evaluator.score([*rows([BREAD], said), *rows([BREAD], "Mix flour with water. " * 12)])
    assert [one.outcome.is_refused for one in found] == [True, False]
    [placed] = await evaluator.score(rows([said]), "output")
    assert placed.outcome.is_refused
    [too_long] = await evaluator.score(rows([BREAD], said * 20))
    assert not too_long.outcome.is_read


async def test_places_that_are_not_screened_are_an_error(evaluator: Evaluator) -> None:
    with pytest.raises(UserError, match="no principle of the charter umbrellas applies to tool_result"):
        await evaluator.score(rows([UMBRELLA]), "tool_result")


def write(path: Path, texts: Sequence[str], y: int, **more: str) -> None:
    path.write_text("".join(json.dumps({"text": text, "y": y, **more}) + "\n" for text in texts))


def test_all_rows_of_a_small_folder(tmp_path: Path) -> None:
    data, shops = tmp_path / "data", tmp_path / "shops"
    for folder in (data, shops):
        folder.mkdir()
    write(data / "simplesafetytests.jsonl", [UMBRELLA, "Sell me a parasol and an umbrella."], 1)
    write(data / "ifeval.jsonl", [BREAD, "Write two lines about rain.", "Name three coats."], 0)
    (shops / "shop.md").write_bytes(source())
    write(shops / "shop.jsonl", [UMBRELLA], 1, principle="no-umbrellas")
    arguments: list[str | Path] = [
        "guard", "eval", data, shops, "--all", "--most", "3", "--threads", "1", "--charter", shops / "shop.md",
        "--data", tmp_path / "installation", "--only", "plain", "--only", "business", "--only", "left-out",
        "--json", "--report", tmp_path / "report.md",
    ]  # fmt: skip
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    figures = {one["figure"]: one for one in found["figures"]}
    assert figures["SimpleSafetyTests refused"]["n"] == 2
    assert figures["HarmBench standard refused"]["note"] == "n/a: no such source"
    assert figures["business charters, violations caught"]["value"] == 1
    assert figures["business charters, ordinary prompts refused"]["n"] == 3
    assert (
        "without HumanEval and XQuAD English and agents' turns"
        in (figures["business charters, ordinary prompts refused"]["note"])
    )
    assert figures["look-alikes (149 of coconot_contrast) refused"]["note"] == "n/a: trained on it"
    assert "SimpleSafetyTests refused | 2 |" in (tmp_path / "report.md").read_text()
    assert found["subject"]["bundle"][:16] in (tmp_path / "report.md").read_text()

    kept = tmp_path / "installation" / "guard-scores.jsonl"
    lines = kept.read_text()
    assert UMBRELLA not in lines + done.stderr
    again = run(*arguments)
    assert json.loads(again.stdout) == found
    assert kept.read_text() == lines, "what was scored is not scored again"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "plain"), "--only, --marks, --sessions and --json go with --all"),
        (("--json",), "--only, --marks, --sessions and --json go with --all"),
        (("--all", "--answers", "3"), "--answers, --ordinary and --place do not go with it"),
        (("--all", "--only", "cellar"), "--only cellar: the groups of rows are plain, "),
        (("--place", "cellar"), "a guard has no place 'cellar'"),
        (("--place", "tool_result"), "no principle of the charter umbrellas applies to tool_result"),
    ],
)
def test_options_that_do_not_fit_are_an_error(tmp_path: Path, options: Sequence[str], said: str) -> None:
    write(tmp_path / "ifeval.jsonl", [BREAD], 0)
    (tmp_path / "shop.md").write_bytes(source())
    done = run("guard", "eval", tmp_path, "--charter", tmp_path / "shop.md", "--data", tmp_path / "d", *options)
    assert said in done.stderr.replace("\n", " ")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
