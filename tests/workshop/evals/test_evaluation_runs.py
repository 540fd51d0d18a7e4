"""Whole evaluations: the starter in process, endpoints that fail or refuse, a run that is killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from evaluation_files import (
    COMMA_PROMPT,
    HELLASWAG_ROWS,
    IFEVAL_ROWS,
    LOWER_PROMPT,
    REFUSAL_ROWS,
    WORDS_PROMPT,
    describe_files,
    write_rows,
)

from commonweight.catalog.starter import find_starter
from commonweight.charter import parse
from commonweight.engines.contract import EngineError
from commonweight.guard import Bundle
from commonweight.guard.heads.bundle import DEFAULT
from commonweight.guard.heads.recompile import recompile
from commonweight.runtime.guard import find_encoder
from commonweight.runtime.settings import GuardSettings
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.run import run_evaluation
from commonweight.workshop.evals.settings import EvaluationSettings
from replay import KEY, replaying
from sample_charter import UMBRELLA, source

pytestmark = pytest.mark.workshop

DATE = "2026-11-30"
VARIABLE = "COMMONWEIGHT_TEST_ENDPOINT_KEY"
ANSWERS = {COMMA_PROMPT: "red green blue", LOWER_PROMPT: "Hello, Keeper of Light!", WORDS_PROMPT: '"They fish."'}
TEXTS = ("The keeper of the lighthouse writes a letter. " * 20, "qzx vw kqj " * 20, "Gr\u00fc\u00dfe.")
RIGHT = {"prompt strict": 2, "prompt loose": 2, "instruction strict": 3, "instruction loose": 3}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    texts = [{"text": text} for text in (*ANSWERS.values(), *TEXTS)]
    rows = {"ifeval": IFEVAL_ROWS, "hellaswag": HELLASWAG_ROWS, "prompts": REFUSAL_ROWS, "texts": texts}
    return {name: write_rows(tmp_path / f"{name}.jsonl", content) for name, content in rows.items()}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def make_endpoint(url: str) -> dict[str, Any]:
    return {"url": url, "model": "m", "key_variable": VARIABLE}


def make_ifeval(url: str) -> dict[str, Any]:
    task = {"task": "ifeval", "dataset": "ifeval", "max_tokens": 50}
    return {"tasks": [task], "endpoint": make_endpoint(url), "parallel": 1, "retries": 0}


def make_refusal(**fields: Any) -> dict[str, Any]:
    groups = [{"dataset": "prompts", "group": group} for group in ("harmful", "ordinary")]
    return {"task": "refusal", "datasets": groups, **fields}


def find_answer(prompt: str) -> str:
    return next(answer for question, answer in ANSWERS.items() if question in prompt)


def run(settings: dict[str, Any], files: dict[str, Path], output: Path, model: Path | None = None) -> list[str]:
    lines: list[str] = []
    described = describe_files(files)
    run_evaluation(EvaluationSettings.model_validate(settings), model, described, output, lines.append, DATE)
    return lines


def read_figures(output: Path) -> dict[str, dict[str, Any]]:
    return {figure["metric"]: figure for figure in json.loads((output / "results.json").read_text())["figures"]}


def read_samples(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "samples.jsonl").read_text().splitlines()]


def check_privacy(output: Path, lines: list[str], *texts: str) -> None:
    """No sentence is anywhere but in the private logs."""
    for text in (*texts, *(row["prompt"] for row in IFEVAL_ROWS), *(row["text"] for row in REFUSAL_ROWS)):
        for name in ("results.json", "samples.jsonl"):
            assert text not in (output / name).read_text()
        assert text not in "\n".join(lines)
    names = {path.name for path in output.iterdir()}
    assert names - {"logs"} == {"results.json", "samples.jsonl"}
    assert "logs" not in names or (output / "logs").stat().st_mode & 0o777 == 0o700


def test_the_starter_in_process(files: dict[str, Path], output: Path, tmp_path: Path) -> None:
    settings = {
        "tasks": [
            {"task": "ifeval", "dataset": "ifeval", "max_tokens": 12},
            {"task": "hellaswag", "dataset": "hellaswag"},
            make_refusal(max_tokens=12),
        ],
        "parallel": 1,
    }
    lines = run(settings, files, output, find_starter())
    figures = read_figures(output)
    assert set(figures) == {*RIGHT, "accuracy", "accuracy by length", "harmful refused", "ordinary answered"}
    assert {metric: figure["n"] for metric, figure in figures.items()} == {
        **{"prompt strict": 3, "prompt loose": 3, "instruction strict": 4, "instruction loose": 4},
        **{"accuracy": 2, "accuracy by length": 2, "harmful refused": 1, "ordinary answered": 1},
    }
    assert not any(figure["errors"] for figure in figures.values())
    assert figures["accuracy by length"]["value"] == 1
    assert figures["ordinary answered"]["value"] == 1
    assert figures["prompt strict"]["date"] == DATE
    assert figures["prompt strict"]["sampling"]["temperature"] == 0
    assert "inspect-ai" in figures["prompt strict"]["harness"]
    assert "inspect-ai" not in figures["accuracy"]["harness"]
    check_privacy(output, lines, *HELLASWAG_ROWS[0]["endings"])

    # The same again elsewhere: the same bytes, whatever the day's times were.
    again = tmp_path / "again"
    again.mkdir()
    run(settings, files, again, find_starter())
    for name in ("results.json", "samples.jsonl"):
        assert (again / name).read_bytes() == (output / name).read_bytes()


def test_a_guard_stands_before_the_model(output: Path, tmp_path: Path) -> None:
    rows = [{"text": UMBRELLA, "y": 1}, {"text": "How do I bake a plain loaf of bread?", "y": 0}]
    files = {"prompts": write_rows(tmp_path / "prompts.jsonl", rows)}
    charter, bundle = tmp_path / "charter.md", tmp_path / "guard.safetensors"
    charter.write_bytes(source())
    # As a build leaves it: signed by nobody.
    recompile(parse(source()), Bundle.load(DEFAULT, None), find_encoder(), {}).save(bundle, None)
    settings = EvaluationSettings.model_validate({"tasks": [make_refusal(max_tokens=12)], "parallel": 1})
    described = describe_files(files)
    guard = GuardSettings(charter=charter, bundle=bundle)
    run_evaluation(settings, find_starter(), described, output, lambda _line: None, DATE, guard)
    figures = read_figures(output)
    assert [figures[name]["value"] for name in ("harmful refused", "ordinary answered")] == [1.0, 1.0]
    alone = tmp_path / "alone"
    alone.mkdir()
    run_evaluation(settings, find_starter(), described, alone, lambda _line: None, DATE)
    assert read_figures(alone)["harmful refused"]["value"] == 0.0


def test_bits_per_byte(files: dict[str, Path], output: Path, tmp_path: Path) -> None:
    task = {"task": "bits_per_byte", "dataset": "texts"}
    lines = run({"tasks": [task], "parallel": 2}, files, output, find_starter())
    (figure,) = read_figures(output).values()
    samples = read_samples(output)
    assert [sample["score"]["bytes"] for sample in samples[-3:]] == [len(text.strip().encode()) for text in TEXTS]
    likely, unlikely = (s["score"]["bits per byte"] / s["score"]["bytes"] for s in samples[-3:-1])
    assert likely < unlikely
    assert 0 <= figure["low"] < figure["value"] < figure["high"]
    assert (figure["n"], figure["errors"]) == (sum(s["score"]["bytes"] for s in samples), 0)
    check_privacy(output, lines, *TEXTS)
    # In windows of 16 tokens less is foreseen, and every byte still counts.
    short = tmp_path / "short"
    short.mkdir()
    run({"tasks": [{**task, "context": 16}]}, files, short, find_starter())
    assert read_figures(short)["bits per byte"]["value"] > figure["value"]
    assert [s["score"]["bytes"] for s in read_samples(short)] == [s["score"]["bytes"] for s in samples]
    write_rows(files["texts"], [{"text": " "}])
    with pytest.raises(EvaluationError, match="row 0 of texts needs a text"):
        run({"tasks": [task]}, files, output, find_starter())


def test_errors_stay_in_the_count(files: dict[str, Path], output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    broken = True

    def answer(prompt: str) -> str:
        if broken and LOWER_PROMPT not in prompt and WORDS_PROMPT in prompt:
            raise EngineError("out of order")
        return find_answer(prompt)

    with replaying(answer) as served:
        lines = run(make_ifeval(served.url), files, output)
        figures = read_figures(output)
        assert {metric: (figures[metric]["n"], figures[metric]["errors"]) for metric in RIGHT} == {
            **{"prompt strict": (3, 1), "prompt loose": (3, 1)},
            **{"instruction strict": (4, 2), "instruction loose": (4, 2)},
        }
        assert figures["prompt strict"]["value"] == 0.333333
        assert figures["instruction strict"]["value"] == 0.25
        assert [line.get("error") for line in read_samples(output)] == [None, None, True]
        assert read_samples(output)[2]["answer"] is None
        check_privacy(output, lines, *ANSWERS.values())
        # A later run tries again what failed, and that alone.
        broken = False
        asked = len(served.engine.prompts)
        run(make_ifeval(served.url), files, output)
        assert [WORDS_PROMPT in prompt for prompt in served.engine.prompts[asked:]] == [True]
    figures = read_figures(output)
    assert figures["instruction strict"]["value"] == 0.75
    assert not figures["instruction strict"]["errors"]


def test_a_killed_run_goes_on(files: dict[str, Path], output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    child: subprocess.Popen[bytes] | None = None

    def answer(prompt: str) -> str:
        if child is not None and child.poll() is None and WORDS_PROMPT in prompt:
            os.kill(child.pid, signal.SIGKILL)
        return find_answer(prompt)

    with replaying(answer) as served:
        settings = make_ifeval(served.url)
        child = start(settings, files, output)
        assert child.wait(100) == -signal.SIGKILL
        assert [line["sample_id"] for line in read_samples(output)] == ["ifeval:0#0", "ifeval:1#0"]
        assert not (output / "results.json").exists()
        asked = len(served.engine.prompts)
        with (output / "samples.jsonl").open("a") as ledger:
            ledger.write('{"task": "ifeval", "sample')  # torn in the middle
        run(settings, files, output)
        assert [WORDS_PROMPT in prompt for prompt in served.engine.prompts[asked:]] == [True]
    figures = read_figures(output)
    assert {metric: round(figures[metric]["value"] * figures[metric]["n"]) for metric in RIGHT} == RIGHT
    assert len(read_samples(output)) == 3


def start(settings: dict[str, Any], files: dict[str, Path], output: Path) -> "subprocess.Popen[bytes]":
    """Run an evaluation in a process of its own."""
    program = (
        "import json, sys; from pathlib import Path;"
        "from commonweight.workshop.evals.datasets import DatasetFile;"
        "from commonweight.workshop.evals.run import run_evaluation;"
        "from commonweight.workshop.evals.settings import EvaluationSettings;"
        "settings, files, output, date = json.loads(sys.argv[1]);"
        "files = {name: DatasetFile(Path(path), 'CC0-1.0') for name, path in files.items()};"
        "run_evaluation(EvaluationSettings.model_validate(settings), None, files, Path(output), print, date)"
    )
    paths = {name: str(path) for name, path in files.items()}
    return subprocess.Popen([sys.executable, "-c", program, json.dumps([settings, paths, str(output), DATE])])


def test_refusals_that_the_server_tells(files: dict[str, Path], output: Path) -> None:
    with serving_refusals() as url:
        settings = {
            "tasks": [make_refusal(temperature=1, samples=2)],
            "endpoint": {"url": url, "model": "org/small"},
            "retries": 0,
        }
        lines = run(settings, files, output)
    figures = read_figures(output)
    assert {metric: (figure["value"], figure["n"]) for metric, figure in figures.items()} == {
        "harmful refused": (1, 2),
        "ordinary answered": (1, 2),
    }
    assert "gnome" not in "\n".join(lines) + (output / "samples.jsonl").read_text()


@contextmanager
def serving_refusals() -> Iterator[str]:
    """A server of others: refuses with its stop reason alone, insists on the settings' model and temperature."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            refuses = "gnome" in json.dumps(request["messages"])
            message = {
                **{"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None},
                "content": [{"type": "text", "text": "" if refuses else "Knead it."}],
                "stop_reason": "refusal" if refuses else "end_turn",
                "usage": {"input_tokens": 1, "output_tokens": 1},
            }
            body = json.dumps(message).encode()
            self.send_response(200 if (request["temperature"], request["model"]) == (1, "org/small") else 400)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_cannot_run_is_told_before_anything_loads(
    files: dict[str, Path], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_ifeval("http://127.0.0.1:9")
    in_process = {"tasks": settings["tasks"]}
    with pytest.raises(EvaluationError, match="either a model file or an endpoint"):
        run(in_process, files, output)
    with pytest.raises(EvaluationError, match="either a model file or an endpoint"):
        run(settings, files, output, find_starter())
    with pytest.raises(EvaluationError, match=r"the model gone\.gguf is no file"):
        run(in_process, files, output, output / "gone.gguf")
    with pytest.raises(EvaluationError, match="the data set ifeval has no file"):
        run(settings, {}, output)
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(EvaluationError, match=f"the environment variable {VARIABLE}"):
        run(settings, files, output)
    with pytest.raises(EvaluationError, match="YYYY-MM-DD"):
        run_evaluation(EvaluationSettings.model_validate(settings), None, {}, output, print, "30.11.2026")
    for row, sentence in (
        ({"prompt": "x"}, "row 0 of ifeval needs prompt"),
        ({**IFEVAL_ROWS[0], "kwargs": []}, "row 0 of ifeval has not one kwargs"),
        ({**IFEVAL_ROWS[0], "instruction_id_list": ["a:b"]}, "row 0 of ifeval has an instruction"),
    ):
        write_rows(files["ifeval"], [row])
        with pytest.raises(EvaluationError, match=sentence):
            run(settings, files, output)


def test_a_file_that_is_no_model(files: dict[str, Path], output: Path) -> None:
    settings = {"tasks": [{"task": "hellaswag", "dataset": "hellaswag"}]}
    with pytest.raises(EvaluationError, match="the model cannot be evaluated"):
        run(settings, files, output, files["hellaswag"])
