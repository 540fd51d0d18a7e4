"""Given answers as streams: what leaves before a refusal, counted from a marked sentence on."""

import contextlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.charter import DEFAULT as CHARTER
from commonweight.charter import parse
from commonweight.engines.contract import Generation, Job, Stats
from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.guard.heads.scorer import OUTPUT
from commonweight.prompting import Tokenizer
from commonweight.runtime.errors import UserError
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant
from commonweight.workshop.heads.answer_marks import compute_answer_digest, read_marks
from commonweight.workshop.heads.answer_reading import ReadAnswer
from commonweight.workshop.heads.answer_replay import replay_answer
from commonweight.workshop.heads.request_places import make_request
from commonweight.workshop.heads.sources import LabelledText
from fakes import FakeEngine

SAID = "A loaf needs flour. It needs water and salt as well. " + "Then it rests for an hour. " * 20 + "Bake it."
END = len("A loaf needs flour.")
CALM, ALARMING = -50.0, 50.0


class Unused(FakeEngine):
    """An engine for prompts that are only prepared."""

    window = 4096
    is_ready = True

    def __init__(self) -> None:
        self.stats = Stats()

    def run(self, job: Job) -> AbstractAsyncContextManager[Generation]:
        raise AssertionError("nothing is computed")


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        yield gguf


@pytest.fixture(scope="module")
def guard() -> Guard:
    # Without the encoder, so that the states alone decide.
    return Guard(parse(CHARTER.read_bytes()), Bundle.load(DEFAULT, None), None)


async def read(gguf: Gguf, guard: Guard, logits: Sequence[float], said: str = SAID) -> ReadAnswer:
    """An answer to "Hello." with the logits of its first tokens; the last one is that of all others."""
    tokenizer = Tokenizer(gguf)
    signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
    assistant = Assistant(ModelCard.from_gguf(gguf), tokenizer, Unused(), signer, guard=guard)
    tokens = assistant.split_tokens(said)
    assert guard.probe is not None
    rows: list[bytes | None] = []
    for i in range(len(tokens)):
        row = [0.0] * guard.probe.heads
        row[OUTPUT] = logits[min(i, len(logits) - 1)]
        rows.append(struct.pack(f"<{len(row)}f", *row))
    return ReadAnswer(await assistant.prepare(make_request("Hello.")), tokens, rows)


async def test_of_a_calm_answer_all_leaves(gguf: Gguf, guard: Guard) -> None:
    answer = await read(gguf, guard, [CALM])
    found = await replay_answer(guard, Tokenizer(gguf), answer, END)
    assert not found.is_refused
    assert found.left == len(answer.tokens)
    before = len(Tokenizer(gguf).encode(SAID[:END]))
    assert found.late == len(answer.tokens) - before


async def test_white_space_that_no_block_begins_with_moves_nothing(gguf: Gguf, guard: Guard) -> None:
    plain = await replay_answer(guard, Tokenizer(gguf), await read(gguf, guard, [CALM]), END)
    indented = await read(gguf, guard, [CALM], "\n\n" + SAID)
    found = await replay_answer(guard, Tokenizer(gguf), indented, END + 2)
    assert found.left == len(indented.tokens)
    assert found.late == plain.late


async def test_of_an_answer_that_alarms_from_the_start_nothing_leaves_late(gguf: Gguf, guard: Guard) -> None:
    answer = await read(gguf, guard, [ALARMING])
    found = await replay_answer(guard, Tokenizer(gguf), answer, len(SAID) - 5)
    assert found.is_refused
    assert found.late == 0
    assert found.left < 16


async def test_what_is_held_at_a_refusal_has_not_left(gguf: Gguf, guard: Guard) -> None:
    calm = 40
    answer = await read(gguf, guard, [*[CALM] * calm, ALARMING])
    found = await replay_answer(guard, Tokenizer(gguf), answer, END)
    assert found.is_refused
    assert calm <= found.left < len(answer.tokens)
    assert found.late == found.left - len(Tokenizer(gguf).encode(SAID[:END]))


def test_marks_are_found_by_prompt_and_answer(tmp_path: Path) -> None:
    row = LabelledText("Bake.", is_harmful=True, answer=SAID)
    path = tmp_path / "marks.tsv"
    path.write_text(f"answer\tend\n{compute_answer_digest(row)}\t{END}\n")
    assert read_marks(path) == {compute_answer_digest(row): END}
    assert compute_answer_digest(LabelledText("Bake", is_harmful=True, answer="." + SAID)) not in read_marks(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"answer end\n",
        b"answer\tend\n" + b"a" * 64 + b"\n",
        b"answer\tend\n" + b"a" * 63 + b"\t7\n",
        b"answer\tend\n" + b"a" * 64 + b"\t-7\n",
        b"answer\tend\n" + b"a" * 64 + b"\t0\n",
        b"answer\tend\n" + (b"a" * 64 + b"\t7\n") * 2,
        b"\xff\xfe",
    ],
)
def test_a_file_that_holds_no_marks(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "marks.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"marks\.tsv"):
        read_marks(path)


def test_the_marks_that_ship_can_be_read() -> None:
    marks = read_marks(Path(__file__).parents[2] / "benchmarks" / "guard" / "marks" / "harmbench_resp.tsv")
    assert len(marks) == 60
