"""The log: which request a line is about, and nothing of what was said."""

import contextvars
import json
import logging

import pytest

from commonweight.engines.contract import EngineError
from commonweight.runtime.logs import LogFormat, configure_logging
from commonweight.server.access_log import log_request
from commonweight.server.request_log import RequestRecord, set_current

SECRET = "the hidden well"
log = logging.getLogger("commonweight.server.middleware")


pytestmark = pytest.mark.usefixtures("restored_logs")


def exchange(**changes: object) -> RequestRecord:
    made = RequestRecord("req_1", "GET", "/v1/models", route="/v1/models", status=200, seconds=0.25)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_a_line_of_text_names_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text", "info")
    log_request(exchange(key_id="key_1", error="api_error"))
    line = capsys.readouterr().err
    assert line.endswith(" INFO GET /v1/models 200 request_id=req_1 seconds=0.25 key_id=key_1 error=api_error\n")


def test_a_line_of_json_has_everything_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info")
    log_request(exchange())
    told = json.loads(capsys.readouterr().err)
    assert told.pop("time")
    assert told == {
        "level": "INFO",
        "logger": "commonweight.server.access_log",
        "message": "GET /v1/models 200",
        "request_id": "req_1",
        "method": "GET",
        "route": "/v1/models",
        "status": 200,
        "seconds": 0.25,
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_other_lines_name_the_request_that_they_are_about(
    form: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(form, "info")
    log.warning("before")
    context = contextvars.copy_context()
    context.run(set_current, exchange())
    context.run(log.warning, "within")
    before, within = capsys.readouterr().err.splitlines()
    assert "req_1" not in before
    assert "req_1" in within


def test_a_path_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text", "info")
    log_request(exchange(path="/v1/models/a\nERROR b\x1b[31m" + "c" * 1000))
    [line] = capsys.readouterr().err.splitlines()
    assert r"a\nERROR b\x1b[31m" in line
    assert len(line) < 400


def test_probes_are_for_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text", "info")
    log_request(exchange(path="/health", route="/health"))
    assert capsys.readouterr().err == ""
    configure_logging("text", "debug")
    log_request(exchange(path="/health", route="/health"))
    assert "GET /health 200" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "json"])
def test_texts_of_exceptions_are_shown_only_where_they_hold_no_content(
    form: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(form, "info")
    try:
        try:
            try:
                raise ValueError(SECRET)
            except ValueError as error:
                raise EngineError("the engine broke") from error
        except EngineError:
            raise KeyError(SECRET)  # noqa: B904 - in the context of the other
    except KeyError:
        log.exception("it failed")
    told = capsys.readouterr().err
    assert SECRET not in told
    assert "builtins.ValueError" in told
    assert "EngineError: the engine broke" in told
    assert "builtins.KeyError" in told
    assert "test_logs.py" in told
