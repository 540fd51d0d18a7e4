"""Configuration of the engine process."""

import msgspec

from commonweight.engines.settings import EngineSettings


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of the engine process: the operator's settings, and the sizes chosen by them."""

    path: str
    window: int
    """Context length: maximum tokens of prompt and answer together."""
    cells: int
    """KV cells (one a token), for all running jobs together."""
    sequences: int
    """Maximum of jobs that run at the same time."""
    reserved: int = 0
    """So many of them only if they are urgent."""
    threads: int
    batch_rows: int = 512
    drafts: int = 15
    """Maximum draft tokens of one stream a step; 0 turns speculative decoding off."""
    ram_bytes: int = 1 << 30
    """Capacity of the prefix cache in RAM."""
    disk_folder: str | None = None
    """Folder of the prefix cache's disk tier; None: no disk tier."""
    disk_bytes: int = 0
    settings: EngineSettings = EngineSettings()
