"""Configuration of the engine process."""

import msgspec

from commonweight.engines.settings import EngineSettings


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of the engine process: the operator's settings, and the sizes that were chosen by them."""

    path: str
    window: int
    """Most tokens a prompt and its answer may have together."""
    cells: int
    """Tokens that the KV cache holds, for all running jobs together."""
    sequences: int
    """Jobs that run at the same time."""
    threads: int
    batch_rows: int = 512
    drafts: int = 15
    """Most tokens of one stream guessed ahead a step; 0 turns speculation off."""
    ram_bytes: int = 1 << 30
    """For prefixes that no running job uses."""
    disk_folder: str | None = None
    """Where prefixes outlive the process; None: nowhere."""
    disk_bytes: int = 0
    settings: EngineSettings = EngineSettings()
