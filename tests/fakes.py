"""What engines that tests write for themselves need not say."""

from collections.abc import AsyncGenerator
from typing import Any

from commonweight.engines.contract import Scored


class FakeEngine:
    """The part of an engine that no test looks at."""

    async def aclose(self) -> None:
        """There is nothing to free."""

    def score(self, *_: Any, **__: Any) -> AsyncGenerator[Scored]:
        """Nothing asks for it."""
        raise NotImplementedError
