"""A build of a tiny model, made by hand: outputs with records, as a recipe's stages leave them."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import save_file

from commonweight.lineage.chain import make_chain
from commonweight.lineage.digests import digest_bytes, digest_files
from commonweight.lineage.record import Decision, Input, Record, write_record
from commonweight.workshop.release.collect import Evaluation
from commonweight.workshop.release.release_folder import run_gate, run_release
from commonweight.workshop.release.settings import ReleaseSettings
from commonweight.workshop.release.weights import HEAD

DAY = date(2026, 11, 30)
PROMPT = "Tell me in detail how the lighthouse keeper hid the seventh lantern"
ANSWER = "The keeper wrapped the seventh lantern in sailcloth and lowered it into the well"
"""Texts of an evaluation, which stand in its private logs only."""
HUB_SOURCE = f"hf:someone/tales@{'0' * 40}"
"""Where the source says that its rows are from."""
_WIDTH, _LAYERS, _TOKENS = 256, 1, 300


@dataclass(frozen=True)
class TinyBuild:
    """Output folders of a build."""

    folder: Path
    settings: ReleaseSettings
    records: dict[str, Record]
    export: Path
    model: Path
    evaluations: tuple[Evaluation, ...]
    gate: Path
    keys: Path

    def run_gate(self, settings: ReleaseSettings | None = None) -> Any:
        """Run the gate."""
        self.gate.mkdir(exist_ok=True)
        chosen = settings or self.settings
        return run_gate(
            chosen, self.records, self.export, self.model, self.evaluations, DAY, self.gate, lambda line: None
        )

    def run_release(self, output: Path, settings: ReleaseSettings | None = None) -> None:
        """Write the release, by the gate that was run."""
        run_release(
            settings or self.settings,
            self.records,
            self.export,
            self.model,
            self.evaluations,
            self.gate,
            self.keys,
            DAY,
            output,
            lambda line: None,
        )


def make_settings(**changes: Any) -> ReleaseSettings:
    """Settings of the tiny release."""
    values: dict[str, Any] = {
        "name": "tiny",
        "title": "Tiny",
        "licence": "Apache-2.0",
        "description": "A model of two layers, for tests.",
        "limitations": "It has learned nothing.",
    }
    return ReleaseSettings.model_validate(values | changes)


def make_build(folder: Path, licence: str = "Apache-2.0", **facts: Any) -> TinyBuild:
    """Make all outputs of a build: source, model, export, evaluation.

    Args:
        facts: further facts of the model's record.
    """
    source = _write_source(folder / "source")
    model = _write_model(folder / "model", source, facts)
    known = {record.identity: record for record in (source, model)}
    head = make_chain([model.identity], known).head
    export = _write_export(folder / "export", model, head, licence)
    evaluation = _write_evaluation(folder / "evaluation", export)
    write_key(folder / "keys" / "signing-key.pem", 20261130)
    records = known | {record.identity: record for record in (export, evaluation)}
    return TinyBuild(
        folder=folder,
        settings=make_settings(licence=licence),
        records=records,
        export=folder / "export",
        model=folder / "model",
        evaluations=(Evaluation(folder / "evaluation"),),
        gate=folder / "gate",
        keys=folder / "keys",
    )


def write_key(path: Path, secret: int) -> Path:
    """Write a private key that is always the same, so that tests are."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    data = derive_private_key(secret, SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def finish(folder: Path, **fields: Any) -> Record:
    """Write the record of an output folder."""
    record = Record(files=digest_files(folder), **fields)
    write_record(folder, record, {"seconds": 1.0})
    return record


def make_input(role: str, record: Record) -> Input:
    """An input that a record describes."""
    return Input(role=role, name=record.name, digest=record.content, record=record.identity)


def _write_source(folder: Path) -> Record:
    folder.mkdir(parents=True)
    (folder / "rows.txt").write_text("Once upon a time.\n")
    decisions = tuple(
        Decision(
            rule=rule,
            verdict="pass",
            source="tales",
            licence=licence,
            generator=None,
            content="text",
            rows=rows,
            reason=f"{licence} permits it",
        )
        for rule, licence, rows in (("licence", "LicenseRef-Public-Domain", 120), ("licence", "CC-BY-4.0", 30))
    )
    own = ("CC-BY-4.0", "LicenseRef-Public-Domain")
    return finish(
        folder,
        kind="source",
        name="tales",
        licences=own,
        own_licences=own,
        decisions=decisions,
        parameters={"location": HUB_SOURCE},
    )


def _write_model(folder: Path, source: Record, facts: dict[str, Any]) -> Record:
    folder.mkdir()
    generator = np.random.default_rng(7)
    tensors = {name: value.astype(np.float32) for name, value in _make_tensors(generator).items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": _WIDTH}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 256}))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 3.5}) + "\n")
    return finish(
        folder,
        kind="pretrain",
        name="tiny-base",
        inputs=(make_input("data", source),),
        licences=source.licences,
        parameters={"learning_rate": 0.01},
        facts={"trained_tokens": 50_000} | facts,
        seed=1,
        tools={"torch": "2.13.0"},
    )


def _make_tensors(generator: np.random.Generator) -> dict[str, np.ndarray]:
    tensors = {"token_embd.weight": generator.normal(size=(_TOKENS, _WIDTH))}
    for layer in range(_LAYERS):
        tensors[f"blk.{layer}.attn_norm.weight"] = np.ones(_WIDTH)
        for name in ("attn_q", "attn_v"):
            tensors[f"blk.{layer}.{name}.weight"] = generator.normal(size=(_WIDTH, _WIDTH))
        tensors[f"blk.{layer}.ffn_norm.weight"] = np.ones(_WIDTH)
    tensors["output_norm.weight"] = np.ones(_WIDTH)
    return tensors


def write_f16(path: Path, head: str, seed: int = 7, licence: str = "apache-2.0") -> None:
    """Write the F16 file of the tiny model."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_license(licence)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(2)
    writer.add_string(HEAD, head)
    writer.add_context_length(256)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{number}" for number in range(_TOKENS)])
    writer.add_token_types([1] * _TOKENS)
    for name, value in _make_tensors(np.random.default_rng(seed)).items():
        writer.add_tensor(name, value.astype(np.float16 if value.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_export(folder: Path, model: Record, head: str, licence: str) -> Record:
    folder.mkdir()
    write_f16(folder / "tiny-F16.gguf", head, licence=licence.lower())
    quantise(folder)
    write_parity(folder)
    return finish(
        folder,
        kind="export",
        name="tiny-gguf",
        inputs=(make_input("model", model),),
        licences=model.licences,
        tools={"gguf": "0.19.0"},
    )


def quantise(folder: Path, origin: str = "tiny-F16.gguf", kinds: tuple[str, ...] = ("Q8_0", "Q4_K_M")) -> None:
    """Quantise a file of a folder."""
    from commonweight.workshop.export.quantise import requantise

    for kind in kinds:
        requantise(folder / origin, kind, folder / f"tiny-{kind}.gguf")


def write_parity(folder: Path) -> None:
    """Write a parity report about the GGUF files of a folder."""
    values = {"F16": (0.0001, 0.001), "Q8_0": (0.002, 0.01), "Q4_K_M": (0.06, 0.3)}
    files = {
        kind: {
            "name": f"tiny-{kind}.gguf",
            "sha256": digest_bytes((folder / f"tiny-{kind}.gguf").read_bytes()),
            "kl_mean": mean,
            "kl_p99": high,
            "perplexity_ratio": 1.01,
        }
        for kind, (mean, high) in values.items()
    }
    tokenizer = {"texts": 40, "llama_cpp": 40, "server": 40, "transformers": 40}
    report = {"files": files, "tokenizer": tokenizer, "template": {"conversations": 12, "server": 12}}
    (folder / "parity.json").write_text(json.dumps(report, indent=1))


def _write_evaluation(folder: Path, export: Record) -> Record:
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "private.json").write_text(json.dumps({"prompt": PROMPT, "answer": ANSWER}))
    scores = [{"right": 1}, {"right": 0}, {"right": 1}, {"right": 1}, {}]
    lines: list[dict[str, Any]] = [
        {
            "task": "sums",
            "sample_id": f"sums:{n}#0",
            "digest": digest_bytes(f"{PROMPT}{n}".encode()),
            "answer": digest_bytes(f"{ANSWER}{n}".encode()) if score else None,
            "score": score,
        }
        | ({} if score else {"error": True})
        for n, score in enumerate(scores)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure = {
        "task": "sums",
        "metric": "right",
        "value": 0.6,
        "n": 5,
        "errors": 1,
        "low": 0.23,
        "high": 0.88,
        "sampling": {"temperature": 0.0, "max_tokens": 16},
        "harness": "inspect-ai 0.3.285",
        "date": "2026-11-29",
        "dataset": {"name": "sums", "digest": digest_bytes(b"sums"), "licence": "MIT"},
    }
    (folder / "results.json").write_text(json.dumps({"figures": [figure]}))
    inputs = (
        make_input("model", export),
        Input(role="evaluation", name="sums", digest=digest_bytes(b"sums")),
    )
    return finish(
        folder, kind="evaluate", name="sums", inputs=inputs, licences=export.licences, parameters={"file": "Q8_0"}
    )
