"""What engines that tests write for themselves need not say."""

from commonweight.engines.scoring import PromptScorer


class FakeEngine(PromptScorer):
    """The part of an engine that no test looks at."""

    async def aclose(self) -> None:
        """There is nothing to free."""
