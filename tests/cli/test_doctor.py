"""``commonweight doctor``: what a server would meet with here, said before it starts."""

import json
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from command import one_line_error, run
from commonweight.catalog.integrity import check_content
from commonweight.catalog.starter import find_starter
from commonweight.cli.doctor import doctor
from commonweight.engines.llama.model.machine import count_cores
from commonweight.engines.llama.model.speed import Speed
from commonweight.engines.settings import EngineSettings
from commonweight.llamacpp import api
from commonweight.runtime import checks, findings
from commonweight.runtime.data import DataFolder
from commonweight.runtime.settings import AssistantSettings
from commonweight.store import Database, read_revisions

PARTS = [
    "versions",
    "llama.cpp",
    "processor",
    "load",
    "memory",
    "model",
    "address",
    "data",
    "cache",
    "database",
    "traces",
]


def test_a_machine_on_which_a_server_would_start(tmp_path: Path) -> None:
    done = run("doctor", "--port", "0", "--data", tmp_path, COLUMNS="160")
    assert (done.returncode, done.stderr) == (0, "")
    for part in PARTS:
        assert part in done.stdout
    assert "fail" not in done.stdout
    assert "its content is as published" in done.stdout
    assert done.stdout.endswith("A server would start.\n")
    assert list(tmp_path.iterdir()) == []  # it only looks


def test_a_machine_on_which_none_would(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run(
            "doctor",
            *("--port", str(port), "--model", tmp_path / "none.gguf", "--data", tmp_path / "file" / "data"),
            *("--database", "postgresql+asyncpg://someone:secret@127.0.0.1:1/none"),
            COLUMNS="200",
            OTEL_EXPORTER_OTLP_ENDPOINT="http://user:secret@collector",
        )
    assert done.returncode == 1
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("fail")]
    assert failed == ["model", "address", "data", "database"]
    assert "No such file or directory" in done.stdout
    assert "something else listens there" in done.stdout
    assert "choose another with --data" in done.stdout
    assert "secret" not in done.stdout
    assert done.stdout.endswith("A server would not start.\n")


def test_servers_elsewhere_are_looked_at(tmp_path: Path) -> None:
    elsewhere = ("--engine", "vllm", "--engine-url", "http://127.0.0.1:9")
    done = run("doctor", "--port", "0", "--data", tmp_path, *elsewhere, COLUMNS="160")
    assert done.returncode == 1
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("fail")]
    assert failed == ["servers"]
    assert "no server answers (http://127.0.0.1:9" in done.stdout
    assert "model in memory" not in done.stdout


def test_a_server_says_so_when_it_cannot_keep_its_data(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = one_line_error(run("serve", "--port", "0", "--data", tmp_path / "file" / "data"))
    assert str(tmp_path / "file" / "data") in error
    assert "--data" in error


@pytest.mark.parametrize(("free", "status"), [(10 << 30, "ok"), (1 << 30, "warn"), (1 << 20, "fail")])
def test_little_space_is_told_in_time(
    free: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=free))
    assert findings.check_data_folder(DataFolder.from_options(tmp_path)).status == status


async def test_the_version_of_the_tables(tmp_path: Path) -> None:
    data = DataFolder.from_options(tmp_path)
    assert (await checks.check_database(data)).text == "no tables yet; serve makes them"
    async with Database.open(data.database_url) as database, database.write() as connection:
        found = await checks.check_database(data)
        assert found.status == "ok"
        assert "up to date" in found.text
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    found = await checks.check_database(data)
    assert (found.status, "newer version" in found.text) == ("fail", True)


async def test_looking_at_a_database_changes_nothing(database_url: str) -> None:
    before = await read_revisions(database_url)
    assert (before.current, before.is_known) == (None, True)
    async with Database.open(database_url):
        pass
    after = await read_revisions(database_url)
    assert after.current == after.newest == before.newest


def test_a_model_file_with_other_content_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_starter()
    assert whole is not None
    changed = tmp_path / whole.name
    changed.write_bytes(whole.read_bytes()[:-1] + b"x")
    assert not check_content(changed)  # of just any file nothing is known
    monkeypatch.setattr("commonweight.catalog.integrity.find_starter", lambda: changed)
    [finding] = checks.check_model(AssistantSettings(model=str(changed)))
    assert finding.status == "fail"
    assert "has changed: its SHA-256 is" in finding.text


def test_a_model_that_is_not_here_is_not_pulled() -> None:
    for reference in ("hf:nobody/nothing/none.gguf", "hf:nobody/nothing", "hf:nobody/nothing:Q4_0"):
        [finding] = checks.check_model(AssistantSettings(model=reference))
        assert (finding.status, finding.advice) == ("warn", "serve pulls it when it starts")
    [finding] = checks.check_model(AssistantSettings(model="hf:nonsense"))
    assert finding.status == "fail"


@pytest.mark.parametrize(("percent", "status"), [(5.0, "ok"), (95.0, "warn")])
def test_a_busy_machine_is_told(percent: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: percent)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    found = checks.check_load()
    assert (found.status, found.text) == (status, f"other processes use {percent / 25:.1f} of 4 threads")


def test_a_model_too_large_for_memory_is_told() -> None:
    *_, finding = checks.check_model(AssistantSettings(engine=EngineSettings(cache_ram=10**15)))
    assert (finding.subject, finding.status) == ("model in memory", "fail")
    assert "does not fit into memory" in finding.text


def test_instructions_that_the_prebuilt_library_leaves_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "library", replace(api.library, kind="prebuilt"))
    monkeypatch.setattr(checks, "list_installed", lambda: ["prebuilt"])
    monkeypatch.setattr(api, "llama_print_system_info", lambda: b"CPU : AVX2 = 1 | FMA = 1 | F16C = 1 | ")
    monkeypatch.setattr(checks, "read_cpu_flags", lambda: frozenset({"avx2", "fma", "f16c", "avx512f"}))
    found = checks.check_library(find_starter())
    assert (found.status, "it uses AVX2, F16C, FMA" in found.text) == ("ok", True)
    assert found.advice.startswith("AVX512 of this processor stay unused; to use them, compile one")
    monkeypatch.setattr(checks, "read_cpu_flags", lambda: frozenset({"avx2", "f16c"}))
    found = checks.check_library(None)
    assert (found.status, found.advice.partition(":")[0]) == ("fail", "this processor lacks FMA")


def test_two_libraries_are_compared_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "list_installed", lambda: ["native", "prebuilt"])
    monkeypatch.setattr(checks, "read_cpu_flags", frozenset)
    speeds = {"native": Speed(1.0, 2.0), "prebuilt": Speed(1.5, 2.5)}
    monkeypatch.setattr(checks, "measure_library", lambda kind, *_: speeds[kind])
    text = checks.check_library(find_starter()).text
    assert "a prompt in 1.00 s native, 1.50 s prebuilt, 32 tokens of an answer in 2.00 s and 2.50 s" in text


def test_what_is_asked_for_beyond_what_there_is_is_said() -> None:
    cores = count_cores()
    asked = EngineSettings(context=100_000, threads=cores + 1, cache_ram=0)
    *_, memory = checks.check_model(AssistantSettings(engine=asked))
    assert (memory.subject, memory.status) == ("model in memory", "warn")
    assert memory.advice == (
        "SmolLM2-135M-Instruct.Q4_1 was trained for 8192 tokens; --context is cut to that; "
        f"--threads {cores + 1}: {cores} can run at once here, and those that wait hold up the others"
    )
    within = EngineSettings(context=8192, threads=cores, cache_ram=0)
    *_, memory = checks.check_model(AssistantSettings(engine=within))
    assert (memory.status, memory.advice) == ("ok", "")


def test_findings_for_programs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings, data = AssistantSettings(model=str(tmp_path / "none.gguf")), DataFolder.from_options(tmp_path)
    assert not doctor(settings, data, host="127.0.0.1", port=0, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["would_start"] is False
    assert found["checks"][0].keys() == {"subject", "status", "text", "advice"}
    assert {check["subject"] for check in found["checks"] if check["status"] == "fail"} == {"model"}
