"""A short one for every run of the tests; the other faults take minutes, and have a mark of their own."""

from pathlib import Path

from live_servers import Site, forced, marker_of, until


def test_the_engine_is_killed_under_streams_and_a_batch(tmp_path: Path) -> None:
    site = Site(tmp_path, "--parallel", "2")
    with site.serving() as life:
        streams = [life.stream().begun() for _ in range(2)]
        waiting = [life.stream(forced("alpha")), life.ask(forced("beta"))]
        batch = life.create_batch({f"item-{i}": forced(f"marker-{i}") for i in range(4)})
        until(lambda: life.figures()['commonweight_engine_jobs{state="waiting"}'] >= 2, "two wait")
        life.engine.kill()
        for stream in streams:
            assert stream.error()["type"] == "api_error"
        # Who only waited does not learn of it.
        assert [marker_of(client.message()) for client in waiting] == ["alpha", "beta"]
        results = life.ended(batch)
        assert {name: marker_of(results[name]["message"]) for name in results} == {
            f"item-{i}": f"marker-{i}" for i in range(4)
        }
        life.check()
