"""Sandbox of chat templates: text in, text out, bounded time and memory."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psutil
import pytest
from jinja2.filters import FILTERS

from commonweight.prompting.template import sandbox_worker
from commonweight.prompting.template.chat_template import BadConversationError, BadTemplateError, ChatTemplate
from commonweight.prompting.template.sandbox import MAX_PROCESSES, LimitError, RenderError, Sandbox, TemplateError

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
SECONDS = 1.0


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


def child(sandbox: Sandbox) -> psutil.Process:
    sandbox.render("", {}, SECONDS)
    return psutil.Process(sandbox._idle[0]._process.pid)


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''|attr('__class__')|attr('__mro__') | list | first | attr('x') }}",
    "{{ self.__init__.__globals__.items() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ joiner.__init__.__globals__.os.environ.items() }}",
    "{{ namespace.__init__.__globals__.items() }}",
    "{{ raise_exception.__globals__.items() }}",
    "{{ strftime_now.__code__.co_code }}{{ 1/0 }}",
    "{{ messages.append.__self__.clear() }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}{{ 1/0 }}",
    "{{ ('%s' | format).__class__.__base__.__subclasses__() }}",
    "{% set x = messages.__class__.__base__.__subclasses__() %}{{ x }}{{ 1/0 }}",
    "{{ (messages | map(attribute='__class__') | list)[0].mro() }}",
    "{{ (['a'] | map('attr', '__class__') | list)[0].mro() }}",
    "{{ messages.pop() }}",
    "{{ messages[0].update({'content': 'x'}) }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}",
    "{% extends '/etc/passwd' %}",
]
MEMORY = [
    "{{ 'x' * 10**9 }}",
    "{{ 'x' * 10**12 }}",
    "{{ [0] * 10**10 }}",
    "{{ ('x' * 10**8).center(10**9) }}",
    "{{ 'x' | center(2 * 10**9) }}",
    "{{ '%2000000000d' | format(1) }}",
    "{{ '{:2000000000d}'.format(1) }}",
    "{{ 'x'.ljust(2 * 10**9) }}",
    "{{ '\\t'.expandtabs(2 * 10**9) }}",
    "{{ 'x' | indent(2 * 10**9, true) }}",
    "{{ ('x' * 10**6) | replace('x', 'y' * 10**4) }}",
    "{{ ('x' * 10**5).join(['y'] * 10**5) }}",
    "{{ [1] | tojson(indent=2 * 10**9) }}",
    "{% set ns = namespace(s='x') %}{% for _ in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=[0]) %}{% for _ in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "{% for _ in range(99999) %}{{ 'x' * 10**4 }}{% endfor %}",
]
TIME = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
    "{% endfor %}",
    "{{ 9 ** (9 ** 9 - 1) }}",
    "{{ (10 ** 9999999) % 7 }}{{ (7 ** 9999999) // 3 }}{{ (7 ** 9999999) ** 3 }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{{ lipsum(n=99999, max=9999) }}",
    "{{ range(99999) | map('string') | join | list | sort | unique | list | batch(1) | list | sum(start=[]) }}"
    "{% for a in range(99999) %}{{ range(99999) | list | sort | length }}{% endfor %}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_known_ways_out_are_closed(sandbox: Sandbox, source: str) -> None:
    with pytest.raises(RenderError):
        sandbox.render(source, HELLO, SECONDS)
    assert sandbox.render("{{ messages[0].content }}", HELLO, SECONDS) == "hello"


@pytest.mark.parametrize("source", [*MEMORY, *TIME])
def test_time_and_memory_are_bounded(sandbox: Sandbox, source: str) -> None:
    with pytest.raises(LimitError):
        sandbox.render(source, HELLO, SECONDS)
    # The next one finds a process that is well.
    assert sandbox.render("{{ messages[0].content }}", HELLO, SECONDS) == "hello"


@pytest.mark.parametrize(
    "source", ["{{", "{% if %}", "{% nonsense %}", "{{ x | nonsense }}", "{% for %}" * 3, "(" * 9]
)
def test_an_invalid_template_is_a_template_error(sandbox: Sandbox, source: str) -> None:
    if source.startswith("("):
        assert sandbox.render(source, {}, SECONDS) == source
        return
    with pytest.raises(TemplateError):
        sandbox.render(source, {}, SECONDS)


@pytest.mark.parametrize(
    "source", ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% if 1 %}" * 5000, "{{ 1" + "+1" * 99_999 + " }}"]
)
def test_templates_that_are_too_much_for_the_compiler_end_at_most_their_own_process(
    sandbox: Sandbox, source: str
) -> None:
    with pytest.raises((TemplateError, RenderError)):
        sandbox.render(source, {}, SECONDS)
    assert sandbox.render("a", {}, SECONDS) == "a"


def test_whatever_filters_import_is_there_before_files_are_out_of_reach(sandbox: Sandbox) -> None:
    for name in FILTERS:
        for value in ("'a <b>c</b> d'", "['a']", "{'a': 1}", "1.5"):
            message = ""
            try:
                sandbox.render(f"{{{{ {value} | {name} }}}}", {}, SECONDS)
            except (RenderError, TemplateError) as error:
                message = str(error)
            assert "open files" not in message
    assert sandbox.render("{{ 'a <b>c</b> &amp; d' | striptags | wordwrap(3) }}", {}, SECONDS) == "a c\n& d"


def test_a_hostile_template_is_refused_when_the_model_is_loaded() -> None:
    for source, words in (
        ("{{ 'x' * 10**12 }}", "too much memory"),
        (TIME[0], "takes too long"),
        ("{{", "line 1"),
    ):
        with pytest.raises(BadTemplateError, match=f"the model's chat template .*{words}"):
            ChatTemplate(source, bos_token="", eos_token="")


def test_one_that_waits_for_its_victim_is_a_refused_conversation() -> None:
    source = "{% for m in messages %}{{ m.content }}{{ 'x' * 10**10 if m.content == 'now' }}{% endfor %}"
    template = ChatTemplate(source, bos_token="", eos_token="")
    assert template.render([{"role": "user", "content": "later"}]) == "later"
    with pytest.raises(BadConversationError, match=r"^it takes too much memory$"):
        template.render([{"role": "user", "content": "now"}])


def test_the_process_can_open_connect_and_start_nothing(sandbox: Sandbox) -> None:
    process = child(sandbox)
    limits = {
        name: process.rlimit(getattr(psutil, f"RLIMIT_{name}"))
        for name in ("AS", "NOFILE", "NPROC", "FSIZE", "CORE")
    }
    assert limits == {"AS": (1 << 30,) * 2, "NOFILE": (3, 3), "NPROC": (0, 0), "FSIZE": (0, 0), "CORE": (0, 0)}
    assert process.num_fds() == 3


def test_the_process_knows_no_secrets(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONWEIGHT_API_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert {"COMMONWEIGHT_API_KEY", "HF_TOKEN"}.isdisjoint(child(sandbox).environ())


def test_a_process_that_was_taken_over_can_send_nothing_but_a_text(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = {
        b"\xff" * 9: "too long a prompt",
        sandbox_worker.LENGTH.pack(2) + b"t\xff\xfe": "ended its process",
        sandbox_worker.LENGTH.pack(9) + b"tshort": "ended its process",
        b"": "ended its process",
    }
    popen = subprocess.Popen
    for reply, words in replies.items():
        script = f"import sys; sys.stdin.buffer.read(9); sys.stdout.buffer.write({reply!r})"
        started = partial(popen, [sys.executable, "-c", script])
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", lambda _, started=started, **how: started(**how))
            with pytest.raises(LimitError, match=words):
                sandbox.render("x", {}, SECONDS)


def test_a_process_that_hangs_is_given_up(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    process = child(sandbox)
    monkeypatch.setattr("commonweight.prompting.template.sandbox.RENDER_TIMEOUT_SECONDS", 0.2)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(LimitError, match="takes too long"):
        sandbox.render("x", {}, SECONDS)
    assert not process.is_running()
    monkeypatch.undo()
    assert sandbox.render("x", {}, SECONDS) == "x"


def test_a_process_that_died_while_idle_is_replaced(sandbox: Sandbox) -> None:
    process = child(sandbox)
    process.kill()
    process.wait()
    assert sandbox.render("x", {}, SECONDS) == "x"


def test_threads_get_their_own_texts_from_a_few_processes(sandbox: Sandbox) -> None:
    def render(i: int) -> bool:
        text = f"{i} " * (i * 50)
        return sandbox.render("{{ a }}", {"a": text}, SECONDS) == text

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(render, range(400)))
    assert len(sandbox._idle) <= MAX_PROCESSES


def test_a_long_one_does_not_keep_a_short_one_waiting(sandbox: Sandbox) -> None:
    def take_long() -> None:
        with pytest.raises(LimitError):
            sandbox.render(TIME[0], {}, 3.0)

    thread = threading.Thread(target=take_long)
    thread.start()
    while sandbox._slots._value == MAX_PROCESSES:
        time.sleep(0.001)
    assert sandbox.render("x", {}, SECONDS) == "x"
    assert thread.is_alive()
    thread.join()


def test_large_and_odd_texts_come_through(sandbox: Sandbox) -> None:
    for text in ("x" * 5_000_000, "\udc87\ufdd0\0\U0010ffff", "é" * 70_000):
        assert sandbox.render("{{ a }}", {"a": text}, SECONDS) == text


def test_no_process_outlives_its_server() -> None:
    code = """
import os
from commonweight.prompting.template.sandbox import get_shared_sandbox
get_shared_sandbox().render("", {}, 1)
print(get_shared_sandbox()._idle[0]._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
