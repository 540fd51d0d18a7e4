"""What goes wrong on a person's machine is said in one line, with exit code 1 and no traceback."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from certificates import certificate, with_openssl

from command import one_line_error, run
from commonweight.catalog.starter import find_starter
from commonweight.cli import main
from commonweight.runtime import checks
from commonweight.runtime.settings import AssistantSettings

Mistake = Callable[..., str]


@pytest.fixture
def mistake(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, restored_logs: None) -> Mistake:
    """What the command says to such arguments; in this process, which has the heavy imports behind it."""
    monkeypatch.delenv("COMMONWEIGHT_API_KEY", raising=False)

    def say(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["commonweight", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 1
        output, line = capfd.readouterr()
        assert output == ""
        assert line.startswith("Error: ")
        assert line.count("\n") == 1
        return line.removeprefix("Error: ").rstrip("\n")

    return say


@pytest.mark.parametrize(
    "command", [("serve", "--port", "0", "--model"), ("chat", "--model"), ("bench", "--model"), ("models", "show")]
)
def test_a_missing_file(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "missing.gguf"
    assert one_line_error(run(*command, path)) == f"cannot read {path}: No such file or directory"


def test_a_file_that_is_no_gguf(mistake: Mistake, tmp_path: Path) -> None:
    path = tmp_path / "not [a] model.gguf"
    path.write_text("hello")
    assert mistake("serve", "--port", "0", "--model", path) == f"{path} is not a GGUF file"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "vllm"], "--engine vllm also needs --engine-url: where is it?"),
        (
            ["--engine-url", "http://127.0.0.1:1"],
            "--engine-url also needs --engine: is it vllm or llama-server that answers there?",
        ),
        (
            ["--engine", "vllm", "--engine-url", "gpu1:8000"],
            "--engine-url gpu1:8000: write it like http://127.0.0.1:8000",
        ),
        (
            ["--engine", "vllm", "--engine-url", "http://user:secret@gpu1"],
            "--engine-url http://user:secret@gpu1: write it like http://127.0.0.1:8000",
        ),
        (
            ["--engine", "vllm", "--engine-url", "http://gpu1", "--engine-url", "http://gpu1/"],
            "--engine-url: the same server is named twice",
        ),
    ],
)
def test_engines_elsewhere(mistake: Mistake, arguments: list[str], words: str) -> None:
    assert mistake("serve", "--port", "0", *arguments) == words


def test_an_engine_that_is_not_there(mistake: Mistake, tmp_path: Path) -> None:
    arguments = ("--engine", "vllm", "--engine-url", "http://127.0.0.1:9", "--data", tmp_path)
    assert mistake("serve", "--port", "0", *arguments) == (
        "no server answers (http://127.0.0.1:9: ClientConnectorError: Cannot connect to host 127.0.0.1:9 "
        "ssl:default [Connect call failed ('127.0.0.1', 9)]); is it running, and "
        "is the URL right?"
    )


@pytest.mark.parametrize("kept", [4, 5_000, 2_000_000], ids=["magic alone", "half the header", "no weights"])
def test_a_gguf_that_is_cut_off(mistake: Mistake, kept: int, tmp_path: Path) -> None:
    whole = find_starter()
    assert whole is not None
    path = tmp_path / "cut.gguf"
    with whole.open("rb") as file:
        path.write_bytes(file.read(kept))
    assert str(path) in mistake("serve", "--port", "0", "--model", path)


def write_model(path: Path, template: str) -> Path:
    """A model without weights: a byte a token, and a chat template."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    writer.add_token_scores([0.0] * 259)
    writer.add_token_types([gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256])
    writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("chat",)])
def test_a_template_that_fails_on_every_message(
    mistake: Mistake, command: tuple[str, ...], tmp_path: Path
) -> None:
    path = write_model(tmp_path / "model.gguf", "{{ raise_exception('tools, please') }}")
    assert mistake(*command, "--model", path) == (
        "the model's chat template fails on every message: tools, please"
    )


def test_a_template_that_fails_on_every_message_is_found_by_doctor(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", "{{ raise_exception('tools, please') }}")
    [finding] = checks.check_model(AssistantSettings(model=str(path)))
    assert (finding.subject, finding.status) == ("model", "fail")
    assert "fails on every message: tools, please" in finding.text


@pytest.mark.parametrize("reference", ["hf:nonsense", "hf:org/repo/"])
def test_a_reference_to_nothing_on_the_hub(mistake: Mistake, reference: str) -> None:
    error = mistake("serve", "--port", "0", "--model", reference)
    assert reference in error
    assert "hf:org/repo/file.gguf" in error


def test_a_misspelt_model(mistake: Mistake, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.touch()
    error = mistake("serve", "--port", "0", "--model", tmp_path / "modle.gguf")
    assert error.endswith(f"modle.gguf: No such file or directory; did you mean {path}?")


@pytest.mark.parametrize("reference", ["hf:org/repo", "hf:org/repo:Q4_0"])
def test_a_repository_while_offline(tmp_path: Path, reference: str) -> None:
    error = one_line_error(run("models", "show", reference, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)))
    assert error.startswith(f"cannot list {reference}: ")
    assert "HF_HUB_OFFLINE" in error


def test_a_pull_while_offline(tmp_path: Path) -> None:
    done = run("models", "show", "hf:org/repo/file.gguf", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    error = one_line_error(done)
    assert "HF_HUB_OFFLINE" in error


def test_a_port_that_is_in_use(mistake: Mistake) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = mistake("serve", "--port", str(port))
    assert f"127.0.0.1:{port}" in error
    assert "--port" in error


def test_an_address_of_some_other_machine(mistake: Mistake) -> None:
    # 192.0.2.0/24 is kept for documentation (RFC 5737).
    error = mistake("serve", "--host", "192.0.2.1", "--api-key", "secret")
    assert "192.0.2.1:8000" in error
    assert "--port" not in error


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.invalid"])
def test_other_machines_are_let_in_only_with_a_key(mistake: Mistake, host: str) -> None:
    error = mistake("serve", "--host", host, "--port", "0")
    assert host in error
    assert "--api-key" in error


@pytest.mark.parametrize("key", ["two words", "schlüssel", "line\n"])
def test_a_key_that_no_client_could_show(mistake: Mistake, key: str) -> None:
    assert "API key" in mistake("serve", "--port", "0", "--api-key", key)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_an_empty_key_is_no_key(mistake: Mistake, host: str) -> None:
    # It comes from a variable that is not set, and would open the door to everyone.
    assert "empty" in mistake("serve", "--host", host, "--port", "0", "--api-key", "")


def test_the_key_is_read_from_the_environment(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONWEIGHT_API_KEY", "two words")
    assert "API key" in mistake("serve", "--port", "0")


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("chat",), ("bench",)])
def test_more_memory_than_there_is(mistake: Mistake, command: tuple[str, ...]) -> None:
    error = mistake(*command, "--cache-ram", "1000TB")
    assert "SmolLM2-135M-Instruct.Q4_1.gguf does not fit into memory: it needs 96.6 MB weights + " in error
    assert "1.0 PB --cache-ram" in error
    assert error.endswith("or a smaller quantisation of the model")


def test_less_memory_than_one_request_needs(mistake: Mistake) -> None:
    assert mistake("serve", "--port", "0", "--context", "2048", "--kv-memory", "20MB") == (
        "--kv-memory 20.0 MB is too small: 2048 tokens of context take 47.2 MB. "
        "Try --context 768 or a larger --kv-memory"
    )


def test_the_type_of_the_cache_counts(mistake: Mistake) -> None:
    error = mistake("serve", "--port", "0", "--context", "2048", "--kv-memory", "20MB", "--kv-type", "q8_0")
    assert "2048 tokens of context take 25.1 MB. Try --context 1536 or a larger" in error


@with_openssl
def test_certificates_that_cannot_be_used(mistake: Mistake, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, encrypted = certificate(tmp_path / "other", "-passout", "pass:secret")
    for options, words in (
        (("--tls-cert", tmp_path / "none.pem", "--tls-key", key), "No such file"),
        (("--tls-cert", cert), "no certificate with its unencrypted key"),
        (("--tls-cert", cert, "--tls-key", encrypted), "no certificate with its unencrypted key"),
        (("--tls-key", key), "without --tls-cert"),
    ):
        assert words in mistake("serve", "--port", "0", *options)


@pytest.mark.parametrize("origin", ["*", "example.com", "https://example.com/", "https://*.example.com"])
def test_origins_that_no_browser_has(mistake: Mistake, origin: str) -> None:
    assert f"--cors-origin {origin}: " in mistake("serve", "--port", "0", "--cors-origin", origin)


def test_charters_and_labelled_texts(mistake: Mistake, tmp_path: Path) -> None:
    from commonweight.charter import DEFAULT

    out, texts = tmp_path / "missing" / "a.safetensors", tmp_path / "mine.jsonl"
    assert mistake("charter", "compile", "-o", out) == (
        f"cannot write {out}: {out.parent} is no folder that can be written to"
    )
    assert mistake("charter", "compile", "-o", tmp_path).endswith("it is a folder; name a file in it")
    assert mistake("guard", "eval", tmp_path / "gone.jsonl").endswith("gone.jsonl: No such file or directory")
    texts.write_text('{"text": "How do I bake bread?", "y": 0}\n{"text": 1}\n')
    assert mistake("guard", "eval", texts) == f"{texts}:2: no JSON object with `text` and `y` (ValueError)"
    texts.write_text('{"text": "How do I bake bread?", "y": 0}\n')
    assert mistake("guard", "eval", texts, "--ordinary", "ifevil") == (
        "--ordinary ifevil: there is no such source; these are mine"
    )
    assert "--answers needs ordinary prompts" in mistake("guard", "eval", texts, "--answers", "3")
    untested = tmp_path / "untested.md"
    lines = DEFAULT.read_text().splitlines(keepends=True)
    untested.write_text("".join(line for line in lines if "data: " not in line and line != "tests:\n"))
    assert "the charter has nothing to test" in mistake("charter", "test", untested)
    assert "two charters are compared" in mistake("charter", "diff", untested, untested, untested)
