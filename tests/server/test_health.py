"""Who restarts servers asks ``/health``, who chooses among them ``/ready``."""

import asyncio

import pytest
from observed import application, body, client, gguf

from commonweight.access import Keyring
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.prompting import Tokenizer
from commonweight.server import Lifecycle, create_app, health
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant
from replay import Replay

__all__ = ["gguf"]


async def broken() -> None:
    raise ConnectionError("secret internals")


async def stuck() -> None:
    await asyncio.Event().wait()


async def well() -> None:
    pass


async def test_neither_needs_a_key(gguf: Gguf) -> None:
    async with client(application(gguf, probes={"database": well})) as asking:
        for path in ("/health", "/ready"):
            for method in ("GET", "HEAD"):
                assert (await asking.request(method, path, headers={"x-api-key": "wrong"})).status_code == 200
        assert (await asking.get("/ready")).json() == {
            "status": "ready",
            "checks": {"engine": True, "accepting": True, "database": True},
        }


@pytest.mark.parametrize("probe", [broken, stuck])
async def test_what_the_server_needs_is_asked(
    gguf: Gguf, probe: health.HealthCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT_SECONDS", 0.01)
    async with client(application(gguf, probes={"database": probe})) as asking:
        ready = await asking.get("/ready")
        assert ready.status_code == 503
        assert ready.json()["checks"] == {"engine": True, "accepting": True, "database": False}
        assert "secret" not in ready.text
        assert (await asking.get("/health")).status_code == 200


async def test_while_the_engine_starts_again_the_process_lives_and_is_not_ready(gguf: Gguf) -> None:
    tokenizer = Tokenizer(gguf)
    engine = Replay(tokenizer, [])
    app = create_app(
        Assistant(ModelCard.from_gguf(gguf), tokenizer, engine, Signer(bytes(32), Purpose.THINKING_SIGNATURE)),
        Keyring(None),
    )
    engine.is_ready = False
    async with client(app) as asking:
        alive, ready = await asking.get("/health"), await asking.get("/ready")
    assert (alive.status_code, alive.json()["status"]) == (200, "starting")
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")


async def test_what_is_asked_of_a_server_that_ends_is_refused(gguf: Gguf) -> None:
    lifecycle = Lifecycle()
    async with client(application(gguf, lifecycle=lifecycle)) as asking:
        assert (await asking.post("/v1/messages", json=body())).status_code == 200
        lifecycle.start_draining(17)
        refused = await asking.post("/v1/messages", json=body())
        assert refused.status_code == 503
        assert refused.json()["error"]["type"] == "api_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 17
        assert (await asking.get("/ready")).status_code == 503
        assert (await asking.get("/health")).json()["status"] == "stopping"
        assert (await asking.get("/metrics")).status_code == 200


async def test_it_is_quiet_when_no_request_runs() -> None:
    lifecycle = Lifecycle()
    await lifecycle.wait_until_idle()
    with lifecycle.track_request():
        waiting = asyncio.create_task(lifecycle.wait_until_idle())
        with lifecycle.track_request():
            await asyncio.sleep(0)
        assert lifecycle.running == 1
        assert not waiting.done()
    await waiting
