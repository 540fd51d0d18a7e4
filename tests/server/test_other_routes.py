"""Counting, models and health on the live server."""

import httpx

from conftest import Server

MODEL = "SmolLM2-135M-Instruct.Q4_1"


def get(server: Server, path: str, **parameters: str | int) -> httpx.Response:
    return httpx.get(server.url + path, params=parameters, headers={"authorization": f"Bearer {server.key}"})


def test_the_models_page_lists_the_model_and_its_aliases(server: Server) -> None:
    page = get(server, "/v1/models").json()
    assert [model["id"] for model in page["data"]] == [MODEL, server.alias]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, MODEL, server.alias)
    for model in page["data"]:
        assert model == get(server, f"/v1/models/{model['id']}").json()
        assert (model["type"], model["lifecycle"]) == ("model", "active")
        assert model["max_input_tokens"] == model["max_tokens"] == 8192


def test_capabilities_are_all_there_and_claim_nothing_unbuilt(server: Server) -> None:
    capabilities = get(server, f"/v1/models/{MODEL}").json()["capabilities"]

    def claims(value: object) -> list[bool]:
        if isinstance(value, dict):
            return [claim for inner in value.values() for claim in claims(inner)]
        assert isinstance(value, bool)
        return [value]

    assert set(capabilities) == {
        "batch",
        "citations",
        "code_execution",
        "compaction",
        "context_management",
        "effort",
        "image_input",
        "pdf_input",
        "server_tools",
        "structured_outputs",
        "thinking",
    }
    claimed = {name for name, value in capabilities.items() if any(claims(value))}
    assert claimed == {
        "batch",
        "citations",
        "context_management",
        "pdf_input",
        "structured_outputs",
        "thinking",
    }
    # The starter does not reason, so all there is to choose is that it doesn't.
    types = capabilities["thinking"]["types"]
    assert [name for name, value in types.items() if value["supported"]] == ["disabled"]
    assert not capabilities["thinking"]["supported"]


def test_pages(server: Server) -> None:
    first = get(server, "/v1/models", limit=1).json()
    assert ([model["id"] for model in first["data"]], first["has_more"]) == ([MODEL], True)
    second = get(server, "/v1/models", limit=1, after_id=first["last_id"]).json()
    assert ([model["id"] for model in second["data"]], second["has_more"]) == ([server.alias], False)
    back = get(server, "/v1/models", before_id=server.alias).json()
    assert [model["id"] for model in back["data"]] == [MODEL]
    beyond = get(server, "/v1/models", after_id=server.alias).json()
    assert (beyond["data"], beyond["first_id"], beyond["last_id"]) == ([], None, None)


def test_counting_counts_what_is_rendered(server: Server) -> None:
    def count(**body: object) -> int:
        response = httpx.post(
            f"{server.url}/v1/messages/count_tokens",
            json={"model": "m", **body},
            headers={"x-api-key": server.key},
        )
        assert response.status_code == 200, response.text
        tokens: int = response.json()["input_tokens"]
        return tokens

    short = [{"role": "user", "content": "hi"}]
    assert count(messages=short) == count(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}])
    assert count(messages=short, system="Be brief and kind to everyone you meet.") != count(messages=short)
    longer = [{"role": "user", "content": "hi" + " word" * 100}]
    assert count(messages=longer) == count(messages=short) + 100


def test_health_needs_no_key(server: Server) -> None:
    response = httpx.get(f"{server.url}/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "model": MODEL})
    assert httpx.head(f"{server.url}/health").status_code == 200
