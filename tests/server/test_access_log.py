"""Whatever is asked and however it fails: neither a key nor what was said gets into the log."""

import json

import pytest
from observed import ANSWER, KEY, PROMPT, application, body, client, gguf

from commonweight.catalog.gguf import Gguf
from commonweight.runtime.logs import LogFormat, configure_logging

__all__ = ["gguf"]

WRONG = "sk-wrong-9876543210"


def broken(prompt: str) -> str:
    raise ValueError(prompt)


@pytest.mark.parametrize("form", ["text", "json"])
async def test_the_log_holds_neither_content_nor_keys(
    gguf: Gguf, form: LogFormat, capsys: pytest.CaptureFixture[str], restored_logs: None
) -> None:
    configure_logging(form, "debug")
    async with client(application(gguf)) as asking:
        for stream in (True, False):
            assert (await asking.post("/v1/messages", json=body(stream=stream))).status_code == 200
        await asking.post("/v1/messages/count_tokens", json=body())
        for wrong in (
            body(max_tokens=PROMPT),
            body(messages=[{"role": PROMPT, "content": PROMPT}]),
            body(system=[{"type": PROMPT}]),
            [PROMPT],
        ):
            assert (await asking.post("/v1/messages", json=wrong)).status_code == 400
        await asking.post("/v1/messages", content=b"{" + PROMPT.encode())
        await asking.post("/v1/messages", json=body(), headers={"x-api-key": WRONG})
        await asking.post(
            "/v1/messages", json=body(), headers={"authorization": f"Bearer {WRONG}", "x-api-key": ""}
        )
        await asking.get(f"/v1/models?api_key={KEY}&q={PROMPT}")
    async with client(application(gguf, script=broken)) as asking:
        for stream in (True, False):
            assert (await asking.post("/v1/messages", json=body(stream=stream))).status_code == 500
    told = capsys.readouterr().err
    assert told.count("/v1/messages 200") == 2
    assert told.count("/v1/messages 500") == 2
    for secret in (KEY, WRONG, PROMPT, json.dumps(PROMPT)[1:-1], ANSWER, "hidden well", "crooked"):
        assert secret not in told


async def test_a_line_says_what_a_turn_cost(
    gguf: Gguf, capsys: pytest.CaptureFixture[str], restored_logs: None
) -> None:
    configure_logging("json", "info")
    async with client(application(gguf)) as asking:
        answer = await asking.post("/v1/messages", json=body())
    told = json.loads(capsys.readouterr().err)
    usage = answer.json()["usage"]
    assert told["request_id"] == answer.headers["request-id"]
    assert (told["input_tokens"], told["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])
    assert (told["status"], told["outcome"]) == (200, "end_turn")
