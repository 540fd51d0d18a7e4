"""The first turn after a restart: what a disk cache is for."""

from benchmarks import fairness, prompts
from benchmarks.bench import PLAIN, Bench
from benchmarks.client import ask
from benchmarks.servers import Server
from benchmarks.table import Figure
from benchmarks.wire import Answer

FIRST_WORDS = 8


def restart(bench: Bench) -> list[Figure]:
    """A 4k-token prompt that was computed before the servers were stopped and started: its first token."""
    cold: list[Answer] = []
    ours: list[Answer] = []
    theirs: list[Answer] = []
    for turn in range(bench.few):
        prompt = prompts.session(turn, bench.tokens(4000))

        def first_turn(server: Server, prompt: prompts.Prompt = prompt) -> Answer:
            # Not warm: the first turn is what counts.
            with bench.running(server, warm=False):
                return ask(server, prompt, FIRST_WORDS)

        with bench.folder() as cache:
            disk = ("--cache-disk", "4GiB", PLAIN)
            cold.append(first_turn(bench.commonweight(cache, *disk)))
            ours.append(first_turn(bench.commonweight(cache, *disk)))
        # It keeps nothing that outlives it, so its first life need not be waited for.
        theirs.append(first_turn(bench.llama_server()))
    fairness.complete([*cold, *ours, *theirs], FIRST_WORDS)
    fairness.same_prompts(ours, theirs)
    fairness.new(cold)
    fairness.new(theirs)
    computed = ", ".join(str(answer.prefilled) for answer in ours)
    note = f"of {ours[0].input_tokens} prompt tokens Commonweight computed {computed} (by round), llama-server all"
    label = f"first turn after a restart, {ours[0].input_tokens} tokens, first token"
    times = [answer.first_token for answer in ours]
    return [
        Figure(label, "s", times, [answer.first_token for answer in theirs], target=8, notes=[note]),
        Figure(
            f"{label}, against its own first time", "s", times, [a.first_token for a in cold], "itself", target=8
        ),
    ]
