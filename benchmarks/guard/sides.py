"""Two sides of one engine: an assistant with the guard and one without, measured by turns in one process."""

import contextlib
import gc
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import msgspec

from commonweight.catalog.gguf import Gguf
from commonweight.engines.llama import LlamaEngine
from commonweight.engines.settings import EngineSettings
from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.messages.events import ContentBlockDelta
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Tokenizer
from commonweight.runtime import assistant as runtime
from commonweight.runtime.data import DataFolder
from commonweight.runtime.guard import identify_model, open_guard
from commonweight.runtime.settings import AssistantSettings, GuardSettings
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant, Origin, TurnRecord

WINDOW = 8192
PLACES = 8
ROOT = Path(__file__).parents[2]
WARMING, WARMING_TOKENS = "warming", 8


class SwitchingEngine(LlamaEngine):
    """The embedded engine; its process reads no states for the side without a guard."""

    worker = "benchmarks.guard.untapping"


@dataclass(frozen=True)
class Reading:
    """What a piece of work took, in seconds."""

    wall: float
    cpu: float
    """Of this process and of the engine's together."""
    own_cpu: float
    """Of this process."""


class Meter:
    """Measures wall time, and the CPU time of this process and of the engine's."""

    def __init__(self, engine_pid: int) -> None:
        # Linux: the clock of another process's CPU time, to the nanosecond (clock_getcpuclockid).
        self._engine_clock = (~engine_pid << 3) | 2
        self._readings: list[Reading] = []

    @contextlib.contextmanager
    def measure(self) -> Iterator[None]:
        """Measure the block."""
        gc.collect()
        begun = self._read()
        yield
        wall, own, engine = (then - now for then, now in zip(self._read(), begun, strict=True))
        self._readings.append(Reading(wall, own + engine, own))

    def take(self) -> Reading:
        """Take what the last block took."""
        return self._readings.pop()

    def _read(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), time.clock_gettime(self._engine_clock)


class Side:
    """An assistant that is measured. Each piece of work is a tenant's own: none finds another's prefixes."""

    def __init__(self, name: str, assistant: Assistant, meter: Meter, records: list[TurnRecord]) -> None:
        self.name = name
        self.assistant = assistant
        self.meter = meter
        self.records = records
        """Of turns with a guard."""

    async def answer(self, request: MessageRequest, tenant: str, *, fixed_length: bool = True) -> float:
        """Answer a request; returns the seconds until the first text.

        ``fixed_length``: the answer is as long as the request allows.
        """
        begun = time.perf_counter()
        first = 0.0
        turn = await self.assistant.prepare(request, Origin(tenant=f"{self.name} {tenant}"))
        if fixed_length:
            turn = replace(turn, job=msgspec.structs.replace(turn.job, stop_ids=[]))
        async with contextlib.aclosing(self.assistant.stream(turn)) as events:
            async for event in events:
                if not first and isinstance(event, ContentBlockDelta):
                    first = time.perf_counter() - begun
        return first

    async def warm(self) -> None:
        """Answer a word, so that what follows does not pay for the change of sides."""
        await self.answer(write_request("Count.", WARMING_TOKENS), f"{WARMING} {time.monotonic_ns()}")


@dataclass(frozen=True)
class Sides:
    """The sides of one engine."""

    on: Side
    """With the guard as it is served."""
    off: Side
    text: Side
    """With a guard that reads text only."""

    @property
    def guard(self) -> Guard:
        """The guard of the side that is as served."""
        assert self.on.assistant.guard is not None
        return self.on.assistant.guard

    @property
    def text_guard(self) -> Guard:
        """The guard that reads text only."""
        assert self.text.assistant.guard is not None
        return self.text.assistant.guard


def is_warming(tenant: str) -> bool:
    """Whether a turn of this tenant only warmed a side."""
    return WARMING in tenant.split()


def write_request(text: str, max_tokens: int, system: str = "You are brief.") -> MessageRequest:
    """Write a request whose answer is the likeliest one, so that it is the same on all sides."""
    return MessageRequest.model_validate(
        {
            "model": "m",
            "max_tokens": max_tokens,
            "temperature": 0,
            "system": system,
            "messages": [{"role": "user", "content": text}],
        }
    )


@contextlib.asynccontextmanager
async def open_sides(folder: Path, bundle: Path | None, threads: int | None) -> AsyncIterator[Sides]:
    """Open one engine with the starter, and the assistants on it. ``folder``: for keys, empty.

    Raises:
        BundleError, UserError: the bundle cannot be used.
    """
    data = DataFolder(folder)
    key = data.load_key()
    settings = GuardSettings()
    if bundle is not None:
        # Signed for this folder's key, as `guard trust` does.
        Bundle.load(bundle, None).save(folder / "bundle.safetensors", key)
        settings = GuardSettings(bundle=folder / "bundle.safetensors")
    engine = EngineSettings(
        context=WINDOW, parallel=PLACES, threads=threads, cache_ram=256 << 20, cache_disk=0, speculation=False
    )
    assistant_settings = AssistantSettings(engine=engine, guard=settings)
    records: list[TurnRecord] = []
    # The engine's process leaves out the folder that it is started in.
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with (
        mock.patch.dict(os.environ, PYTHONPATH=paths),
        mock.patch.object(runtime, "LlamaEngine", SwitchingEngine),
    ):
        async with runtime.open_assistant(assistant_settings, data=data, listeners=[records.append]) as on:
            assert isinstance(on.engine, LlamaEngine)
            assert on.engine.pid is not None
            meter = Meter(on.engine.pid)
            with contextlib.closing(Gguf(on.card.path)) as gguf:
                tokenizer = Tokenizer(gguf)
                text_guard = open_guard(settings, identify_model(gguf), key, shows_states=False)
                signer = Signer(key, Purpose.THINKING_SIGNATURE)
                off = Assistant(on.card, tokenizer, on.engine, signer)
                text = Assistant(on.card, tokenizer, on.engine, signer, guard=text_guard)
                yield Sides(
                    Side("on", on, meter, records), Side("off", off, meter, []), Side("text", text, meter, [])
                )


def describe_bundle(path: Path | None) -> str:
    """Describe a bundle: its format and digest."""
    bundle = Bundle.load(path or DEFAULT, None)
    return f"{bundle.manifest.schema_}, {bundle.digest[:16]}"
