"""Guard: a charter and its compiled heads, applied to one exchange after another.

Nothing is remembered from one exchange to the next: what was refused says nothing about what is asked then.
"""

from collections.abc import Collection
from dataclasses import dataclass

from commonweight.charter.principle import Charter, Mode, Place, Principle
from commonweight.guard.bundle import Bundle, BundleError, Strictness
from commonweight.guard.encoder import Embedder
from commonweight.guard.judge import Judge
from commonweight.guard.scorer import ProbeWeights, Scorer
from commonweight.guard.screened_input import ScreenedInput
from commonweight.guard.screening import Screening

JUDGE_TIMEOUT_SECONDS = 10.0
_MODES: tuple[Mode, ...] = ("off", "shadow", "enforce")


@dataclass(frozen=True)
class ActivePrinciples:
    """Principles that are active in one context for one client: those that may refuse, and those that record."""

    refusing: tuple[Principle, ...]
    recording: tuple[Principle, ...]
    """Verdicts of these change nothing: the principle only records, or is in shadow mode."""


class Guard:
    """Applies a charter to exchanges. One for each server."""

    def __init__(
        self,
        charter: Charter,
        bundle: Bundle,
        encoder: Embedder | None,
        multilingual: Embedder | None = None,
        *,
        mode: Mode = "enforce",
        strictness: Strictness = "standard",
        reads_states: bool = True,
        waived: Collection[str] = (),
        judge: Judge | None = None,
        judge_seconds: float = JUDGE_TIMEOUT_SECONDS,
    ) -> None:
        if bundle.manifest.charter != charter.sha256:
            raise BundleError(
                f"the bundle was compiled from another charter ({bundle.manifest.charter[:16]}, not "
                f"{charter.sha256[:16]}): compile the charter again"
            )
        self.charter = charter
        self.digest = bundle.digest
        self.mode = mode
        self.strictness: Strictness = strictness
        self.scorer = Scorer(bundle, encoder, multilingual)
        self.judge = judge
        self.judge_seconds = judge_seconds
        self.reads_states = reads_states and self.scorer.probe is not None
        self._by_id = {principle.id: principle for principle in charter.principles}
        for name in waived:
            if name not in self._by_id:
                raise BundleError(f"{name}: the charter has no such principle to set aside")
            if self._by_id[name].overridable_by == "nobody":
                raise BundleError(f"{name}: the charter lets nobody set this principle aside")
        self._waived = frozenset(waived)

    @property
    def probe(self) -> ProbeWeights | None:
        """Probe weights that the engine applies to hidden states; None if states are not read."""
        return self.scorer.probe if self.reads_states else None

    def get_principle(self, name: str) -> Principle:
        """Get the principle with this id."""
        return self._by_id[name]

    def get_mode(self, principle: Principle, waived: Collection[str] = ()) -> Mode:
        """Get a principle's mode: the weakest of those that the charter, the server and the key set."""
        if principle.id in self._waived:
            return "off"
        if principle.id in waived and principle.overridable_by == "operator":
            return "off"
        return min(self.mode, principle.mode, key=_MODES.index)

    def find_active_principles(self, place: Place, waived: Collection[str]) -> ActivePrinciples:
        """Find the principles that are active in a context."""
        refusing: list[Principle] = []
        recording: list[Principle] = []
        for principle in self.charter.principles:
            mode = self.get_mode(principle, waived)
            if place not in principle.applies_to or mode == "off":
                continue
            refuses = mode == "enforce" and principle.applies_to[place] == "refuse"
            (refusing if refuses else recording).append(principle)
        return ActivePrinciples(tuple(refusing), tuple(recording))

    def start_screening(
        self, screened: ScreenedInput, waived: Collection[str] = (), tenant: str = ""
    ) -> "Screening":
        """Start the screening of an exchange."""
        return Screening(self, screened, waived, tenant)
