"""What the command says about itself, and about models."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from command import environment, run
from commonweight import __version__
from commonweight.catalog.starter import STARTER_SHA256, find_starter
from commonweight.cli import main
from commonweight.cli.options import parse_size as parsed_size

HEAVY = {"commonweight.llamacpp.api", "numpy", "fastapi", "uvicorn", "httpx", "huggingface_hub", "anthropic"}

MEMORY_AND_SPEED = {
    "--context",
    "--threads",
    "--kv-memory",
    "--kv-type",
    "--cache-ram",
    "--cache-disk",
    "--no-speculation",
}


def imported(stderr: str) -> set[str]:
    """The modules that ``-X importtime`` reports."""
    return set(re.findall(r"^import time:.*\| +([\w.]+)$", stderr, re.MULTILINE))


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["serve", "--help"]])
def test_the_version_and_help_come_without_heavy_imports(arguments: list[str]) -> None:
    done = run(*arguments, python=("-X", "importtime"))
    assert done.returncode == 0
    modules = imported(done.stderr)
    assert "commonweight.cli.app" in modules
    assert modules & HEAVY == set()


def test_the_version() -> None:
    assert run("--version").stdout == f"commonweight {__version__}\n"


def test_heavy_imports_would_be_noticed() -> None:
    done = run("models", "list", python=("-X", "importtime"))
    assert imported(done.stderr) & HEAVY >= {"commonweight.llamacpp.api", "numpy"}


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("", ["serve", "chat", "bench", "pull", "models", "--version", "--verbose"]),
        ("serve", ["--model", "--host", "--port", "--api-key", "--alias", "--parallel", *MEMORY_AND_SPEED]),
        ("chat", ["--model", "--system", "--max-tokens", "--temperature", *MEMORY_AND_SPEED]),
        ("bench", ["--model", "--rounds", "--parallel", *(MEMORY_AND_SPEED - {"--cache-disk"})]),
        ("models", ["list", "show"]),
        ("pull", ["MODEL"]),
        ("models list", []),
        ("models show", ["MODEL"]),
    ],
)
def test_every_command_has_help(command: str, names: list[str]) -> None:
    done = run(*command.split(), "-h")
    assert done.returncode == 0
    assert done.stderr == ""
    assert [name for name in names if name not in done.stdout] == []
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_an_unknown_option_is_a_mistake_in_usage() -> None:
    done = run("serve", "--prot", "1")
    assert done.returncode == 2
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("12B", 12),
        ("500MB", 500_000_000),
        ("4GiB", 4 << 30),
        ("1.5 gib", 3 << 29),
        (" 2kb ", 2000),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parsed_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "4G", "-1", "1e9", "4 Gi B", "4,5GB", "nan", "٤GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="4GiB"):
        parsed_size(text)


@pytest.mark.parametrize("option", ["--kv-memory", "--cache-ram", "--cache-disk"])
@pytest.mark.parametrize("command", ["serve", "chat"])
def test_a_wrong_size_is_a_mistake_in_usage(
    command: str, option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["commonweight", command, option, "plenty"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert option in said
    assert "'plenty' is no size" in said


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("commonweight mod", ["models"]),
        ("commonweight models s", ["show"]),
        ("commonweight serve --guard s", ["shadow"]),
    ],
)
def test_completion_is_quick_to_import(words: str, completed: list[str]) -> None:
    # By the name of the command, whoever runs it.
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", _COMPLETE],
        env=environment(
            _COMMONWEIGHT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == completed
    assert imported(done.stderr) & (HEAVY | {"rich.progress", "asyncio"}) == set()


_COMPLETE = "import sys; sys.argv = ['commonweight']; from commonweight.cli import main; main()"


def test_completion_can_be_installed() -> None:
    assert "--install-completion" in run("--help").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--model", "/none"),
        ("serve", "--charter", "/none"),
        ("serve", "--guard-bundle", "/none"),
        ("serve", "--tls-cert", "/none"),
        ("serve", "--data", "/proc/none"),
        ("serve", "--api-key", "two words"),
        ("chat", "--model", "/none"),
        ("bench", "--model", "/none"),
        ("models", "show", "/none"),
        ("charter", "lint", "/none"),
        ("charter", "compile", "/none"),
        ("charter", "compile", "--out", "/none/x"),
        ("charter", "test", "--texts", "/none"),
        ("guard", "eval", "/none"),
        ("guard", "trust", "/none"),
    ],
)
def test_what_is_wrong_with_a_path_is_said_without_heavy_imports(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, python=("-X", "importtime"))
    assert done.returncode == 1
    [said] = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert said.startswith("Error: ")
    # Of the hub's client, the names of its folders are read, and no more.
    heavy = HEAVY - {"huggingface_hub"} | {"huggingface_hub.file_download", "sqlalchemy"}
    assert imported(done.stderr) & heavy == set()


def test_the_starter_model_is_listed_with_its_command(tmp_path: Path) -> None:
    done = run("models", "list", HF_HOME=str(tmp_path))
    assert done.returncode == 0
    assert re.match(r"starter +98\.\d MB +SmolLM2-135M-Instruct\.Q4_1\n +commonweight serve\n", done.stdout)
    assert "hf:org/repo/file.gguf" in done.stdout


def cache(home: Path, name: str, content: bytes) -> Path:
    """A file of a repository in the hub's cache."""
    repo = home / "hub" / "models--someone--some-model"
    path = repo / "snapshots" / ("0123456789" * 4) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(path.parent.name)
    return path


def test_pulled_models_are_listed_by_names_that_are_taken(tmp_path: Path) -> None:
    starter = find_starter()
    assert starter is not None
    cache(tmp_path, "it's [a] model.gguf", starter.read_bytes())
    broken = cache(tmp_path, "broken.gguf", b"GGUF")
    cache(tmp_path, "half-00001-of-00002.gguf", starter.read_bytes())
    done = run("models", "list", HF_HOME=str(tmp_path))
    reference = "hf:someone/some-model/it's [a] model.gguf"
    names = [line.split("  ")[0] for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert names == [
        "starter",
        reference,
        "Others: a GGUF file by its path, hf:org/repo:QUANT or hf:org/repo/file.gguf.",
    ]
    quoted = reference.replace("'", "'\"'\"'")
    assert f"    commonweight serve --model '{quoted}'" in done.stdout.splitlines()
    assert done.stderr.count("left out: ") == 2
    assert str(broken) in done.stderr
    listed = json.loads(run("models", "list", "--json", HF_HOME=str(tmp_path)).stdout)["models"]
    assert [model["model"] for model in listed] == names[:2]
    for model in listed:
        shown = json.loads(run("models", "show", model["model"], "--json", HF_HOME=str(tmp_path)).stdout)
        assert shown.items() >= model.items()
        assert shown["sha256"] == STARTER_SHA256
    assert listed[0].keys() == {
        *("model", "id", "name", "architecture", "parameters", "size_bytes", "window", "licence", "path")
    }


def test_a_model_is_shown_with_what_its_file_says() -> None:
    done = run("models", "show")
    assert done.returncode == 0
    rows = re.findall(r"^(\w+) +(.*?) *$", done.stdout, re.MULTILINE)
    card = {name: value for name, value in rows if not name[0].isspace()}
    assert card["id"] == "SmolLM2-135M-Instruct.Q4_1"
    assert card["architecture"] == "llama"
    assert card["parameters"] == "135 million"
    assert card["window"] == "8,192 tokens"
    assert card["licence"] == "apache-2.0"
    assert card["sha256"] == STARTER_SHA256
    assert re.fullmatch(r"98\.\d MB", card["size"])
    assert card["template"].startswith("{% for message in messages %}")
    assert "<|im_start|>" in done.stdout
