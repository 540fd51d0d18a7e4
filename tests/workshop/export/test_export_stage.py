"""The export stage on tiny models: files that our engine runs like the model, and what stops it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commonweight.workshop.export.settings import ExportError, ExportSettings, KlBounds, ParitySettings

pytestmark = pytest.mark.workshop
pytest_plugins = ["exported_models"]

METADATA = {
    "general.license": "apache-2.0",
    "general.base_model.0.name": "Base",
    "general.base_model.0.organization": "Somebody",
    "commonweight.lineage.head": "ab" * 32,
}


def ignore(_line: str) -> None:
    pass


def change(folder: Path, target: Path, name: str, edit: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a model folder with one of its JSON files changed."""
    shutil.copytree(folder, target)
    content = json.loads((target / name).read_text())
    edit(content)
    (target / name).write_text(json.dumps(content))
    return target


@pytest.mark.parametrize("fixture", ["tiny_llama", "tiny_qwen3"])
def test_exports_behave_like_the_model(
    fixture: str, request: pytest.FixtureRequest, sample_text: str, tmp_path: Path
) -> None:
    from commonweight.workshop.export.exporting import run_export
    from commonweight.workshop.export.quantise import requantise

    model: Path = request.getfixturevalue(fixture)
    lines: list[str] = []
    bounds = ParitySettings(tokens=64, q4_k_m=KlBounds(mean=5, p99=50), perplexity_ratio=10)
    settings = ExportSettings(name="tiny", parity=bounds)
    observed = run_export(settings, model, [sample_text], METADATA, tmp_path, lines.append)
    assert {"F16_seconds", "Q8_0_seconds", "Q4_K_M_seconds", "parity_seconds"} == observed.keys()
    report = json.loads((tmp_path / "parity.json").read_text())
    assert report["tokenizer"]["llama_cpp"] == report["tokenizer"]["server"] == report["tokenizer"]["texts"] == 256
    assert report["template"] == {"conversations": 48, "server": 48}
    assert report["text"]["positions"] == 64
    files = report["files"]
    assert list(files) == ["F16", "Q8_0", "Q4_K_M"]
    assert files["F16"]["kl_mean"] < files["Q8_0"]["kl_mean"] < files["Q4_K_M"]["kl_mean"]
    assert files["F16"]["perplexity"] == pytest.approx(report["model"]["perplexity"], rel=0.01)
    assert all(file["greedy_tokens"] > 0 for file in files.values())
    for kind in ("Q8_0", "Q4_K_M"):
        requantise(tmp_path / "tiny-F16.gguf", kind, tmp_path / "again.gguf")
        assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / f"tiny-{kind}.gguf").read_bytes()


def test_equal_inputs_give_equal_files(tiny_llama: Path, sample_text: str, tmp_path: Path) -> None:
    from commonweight.workshop.export.exporting import run_export

    settings = ExportSettings(name="tiny", quantisations=(), parity=ParitySettings(tokens=32))
    contents = []
    for _ in range(2):
        run_export(settings, tiny_llama, [sample_text], METADATA, tmp_path, ignore)
        contents.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert contents[0] == contents[1]
    assert contents[0].keys() == {"tiny-F16.gguf", "parity.json"}


def test_a_threshold_stops_the_build_and_leaves_the_report(
    tiny_llama: Path, sample_text: str, tmp_path: Path
) -> None:
    from commonweight.workshop.export.exporting import run_export

    bounds = ParitySettings(tokens=32, q8_0=KlBounds(mean=1e-9, p99=1))
    settings = ExportSettings(name="tiny", quantisations=("Q8_0",), parity=bounds)
    with pytest.raises(
        ExportError, match=r"^The mean divergence of tiny-Q8_0.gguf is \S+; at most 1e-09 is allowed.$"
    ):
        run_export(settings, tiny_llama, [sample_text], {}, tmp_path, ignore)
    assert json.loads((tmp_path / "parity.json").read_text())["files"]["Q8_0"]["kl_mean"] > 1e-9


def test_wrong_weights_are_far_from_the_model(tiny_llama: Path, tmp_path: Path) -> None:
    """Rows of queries in the order of Hugging Face's format: the file loads, and is another model."""
    import gguf

    from commonweight.workshop.export.divergence import measure_divergence
    from commonweight.workshop.export.f16 import write_f16

    path = tmp_path / "wrong-F16.gguf"
    write_f16(tiny_llama, path, {})
    tensor = next(one for one in gguf.GGUFReader(path, "r+").tensors if one.name == "blk.0.attn_q.weight")
    tensor.data[:] = np.roll(tensor.data, 1, axis=0)
    tensor.data.flush()
    _, figures = measure_divergence(tiny_llama, {"F16": path}, [list(range(3, 67))], ignore)
    assert figures["F16"].kl_mean > ParitySettings().f16.mean


def test_another_tokenizer_is_found(tiny_llama: Path, tmp_path: Path) -> None:
    from commonweight.workshop.export.f16 import write_f16
    from commonweight.workshop.export.prompt_parity import compare_tokenizers

    def drop_merge(tokenizer: dict[str, Any]) -> None:
        tokenizer["model"]["merges"].pop(0)

    write_f16(tiny_llama, tmp_path / "F16.gguf", {})
    other = change(tiny_llama, tmp_path / "other", "tokenizer.json", drop_merge)
    with pytest.raises(
        ExportError, match=r"of llama.cpp gives other tokens than the model's for \d+ of 256 texts"
    ):
        compare_tokenizers(other, tmp_path / "F16.gguf")


def test_another_template_is_found(tiny_llama: Path, tmp_path: Path) -> None:
    from commonweight.workshop.export.f16 import write_f16
    from commonweight.workshop.export.prompt_parity import compare_templates

    write_f16(tiny_llama, tmp_path / "F16.gguf", {})
    other = shutil.copytree(tiny_llama, tmp_path / "other")
    template = (other / "chat_template.jinja").read_text()
    (other / "chat_template.jinja").write_text(template.replace("im_end|>\\n", "im_end|>"))
    with pytest.raises(ExportError, match="another chat template"):
        compare_templates(other, tmp_path / "F16.gguf")


@pytest.mark.parametrize(
    ("name", "change_to", "sentence"),
    [
        ("config.json", {"architectures": ["MambaForCausalLM"]}, "architecture MambaForCausalLM are not exported"),
        ("config.json", {"attention_bias": True}, "sets attention_bias to what is not exported"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "sets rope_type"),
        ("config.json", {"hidden_act": "gelu"}, "sets hidden_act"),
        ("config.json", {"hidden_size": None}, "has no number hidden_size"),
        ("config.json", {"num_hidden_layers": 3}, "has no tensor model.layers.2"),
        ("config.json", {"num_hidden_layers": 1}, "has the tensor model.layers.1"),
        ("tokenizer.json", {"normalizer": {"type": "NFC"}}, "normalises its text"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "splits text in a way"),
        ("tokenizer.json", {"model": {"type": "Unigram"}}, "no byte-level BPE"),
    ],
)
def test_what_is_not_exported(
    tiny_llama: Path, tmp_path: Path, name: str, change_to: dict[str, object], sentence: str
) -> None:
    from commonweight.workshop.export.f16 import write_f16

    model = change(tiny_llama, tmp_path / "model", name, lambda content: content.update(change_to))
    with pytest.raises(ExportError, match=sentence):
        write_f16(model, tmp_path / "F16.gguf", {})


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"general.architecture": "x"}, "is no key that can be given"),
        ({"tokenizer.ggml.pre": "gpt-2"}, "is no key that can be given"),
        ({"Name": "x"}, "is no key that can be given"),
        ({"general.base_model.1.name": "x"}, "is not numbered from 0"),
    ],
)
def test_metadata_that_cannot_be_given(
    tiny_llama: Path, tmp_path: Path, metadata: dict[str, str], sentence: str
) -> None:
    from commonweight.workshop.export.f16 import write_f16

    with pytest.raises(ExportError, match=sentence):
        write_f16(tiny_llama, tmp_path / "F16.gguf", metadata)


def test_more_tokens_than_embeddings(tiny_llama: Path, tmp_path: Path) -> None:
    from commonweight.workshop.export.f16 import write_f16

    def add_token(tokenizer: dict[str, Any]) -> None:
        tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 400, "content": "<more>"})

    model = change(tiny_llama, tmp_path / "model", "tokenizer.json", add_token)
    with pytest.raises(ExportError, match="has the token id 400, and the model only"):
        write_f16(model, tmp_path / "F16.gguf", {})


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0[]", b"\x08\0\0\0\0\0\0\0not json"])
def test_weights_that_are_no_safetensors(tiny_llama: Path, tmp_path: Path, content: bytes) -> None:
    from commonweight.workshop.export.f16 import write_f16

    model = shutil.copytree(tiny_llama, tmp_path / "model")
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(ExportError):
        write_f16(model, tmp_path / "F16.gguf", {})
    (model / "model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"has no model\.safetensors"):
        write_f16(model, tmp_path / "F16.gguf", {})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_in_half_precision(tiny_llama: Path, tmp_path: Path, dtype: str) -> None:
    """They give the file that the same numbers in float32 give."""
    import torch
    from safetensors.torch import load_file, save_file

    from commonweight.workshop.export.f16 import write_f16

    weights = {
        name: data.to(getattr(torch, dtype)) for name, data in load_file(tiny_llama / "model.safetensors").items()
    }
    for folder, tensors in {
        "half": weights,
        "float32": {name: data.float() for name, data in weights.items()},
    }.items():
        shutil.copytree(tiny_llama, tmp_path / folder)
        save_file(tensors, tmp_path / folder / "model.safetensors")
        write_f16(tmp_path / folder, tmp_path / f"{folder}.gguf", {})
    assert (tmp_path / "half.gguf").read_bytes() == (tmp_path / "float32.gguf").read_bytes()


def test_too_large_for_f16(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from commonweight.workshop.export.f16 import write_f16

    model = shutil.copytree(tiny_llama, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"] + 70_000
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(ExportError, match="not finite in F16"):
        write_f16(model, tmp_path / "F16.gguf", {})


def test_a_cut_off_file(tiny_llama: Path, tmp_path: Path) -> None:
    from commonweight.workshop.export.f16 import write_f16

    model = shutil.copytree(tiny_llama, tmp_path / "model")
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(ExportError, match="is cut off"):
        write_f16(model, tmp_path / "F16.gguf", {})


def test_text_of_a_dataset_folder_and_of_a_file(tmp_path: Path) -> None:
    from commonweight.workshop.data.dataset import DatasetWriter
    from commonweight.workshop.data.manifest import SourceOrigin
    from commonweight.workshop.data.rows import Content, Message, Row
    from commonweight.workshop.export.held_out import iterate_texts

    turns = (Message("user", "three"), Message("assistant", "four"))
    contents = [Content("text", text="two"), Content("messages", messages=turns)]
    with DatasetWriter(tmp_path) as writer:
        writer.add(Row("0" * 16, Content("text", text="one"), "source", "MIT"))
        for content in contents:
            writer.add(Row(content.compute_row_id(), content, "source", "MIT", split="validation"))
        origin = SourceOrigin(name="source", location="text", revision=None, sha256="ab" * 32, files=1)
        writer.finish([origin], dropped={})
    assert list(iterate_texts(tmp_path)) == ["two", "three\n\nfour"]
    (tmp_path / "file.txt").write_text("five")
    assert list(iterate_texts(tmp_path / "file.txt")) == ["five"]
    (tmp_path / "file.txt").write_bytes(b"\xff")
    with pytest.raises(ExportError, match="cannot be read as UTF-8"):
        list(iterate_texts(tmp_path / "file.txt"))


def test_windows_hold_as_many_positions_as_asked_for(tiny_llama: Path, sample_text: str) -> None:
    from tokenizers import Tokenizer

    from commonweight.workshop.export.held_out import make_windows

    tokenizer = Tokenizer.from_file(str(tiny_llama / "tokenizer.json"))
    for positions in (32, 63, 64, 100):
        windows = make_windows(tokenizer, [sample_text, sample_text], positions, 32)
        assert sum(len(window) - 1 for window in windows) == positions
        assert all(2 <= len(window) <= 32 for window in windows)
    with pytest.raises(ExportError, match=r"has \d positions; 32 are the least"):
        make_windows(tokenizer, ["Few."], 100, 32)
