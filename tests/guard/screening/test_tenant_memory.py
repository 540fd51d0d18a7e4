"""Memory by tenant: bounded for all together, and fair."""

from hypothesis import given
from hypothesis import strategies as st

from commonweight.guard.screening.tenant_memory import MAX_SHARES, TenantMemory


def name(number: int) -> bytes:
    return number.to_bytes(4, "big")


def count(memory: TenantMemory[int], tenant: str, of: int) -> int:
    return sum(memory.get(tenant, name(i)) is not None for i in range(of))


def test_the_oldest_goes_first_and_what_is_read_is_new() -> None:
    memory = TenantMemory[int](32)
    for i in range(32):
        memory.put("a", name(i), i)
    assert memory.get("a", name(0)) == 0
    memory.put("a", name(32), 32)
    assert (memory.get("a", name(0)), memory.get("a", name(1)), memory.get("a", name(2))) == (0, None, 2)
    assert memory.size == 32


def test_a_tenant_with_much_pushes_out_its_own() -> None:
    memory = TenantMemory[int](100)
    for i in range(20):
        memory.put("small", name(i), i)
    for i in range(1000):
        memory.put("large", name(i), i)
    assert (count(memory, "small", 20), count(memory, "large", 1000)) == (20, 80)
    # A third finds its share, from the one that has more than its own.
    for i in range(1000):
        memory.put("third", name(i), i)
    assert count(memory, "small", 20) == 20
    assert count(memory, "large", 1000) >= 100 // 3
    assert count(memory, "third", 1000) >= 100 // 3


def test_many_idle_tenants_leave_room() -> None:
    memory = TenantMemory[int](10 * MAX_SHARES)
    for tenant in range(10 * MAX_SHARES):
        memory.put(str(tenant), name(0), 0)
    for i in range(1000):
        memory.put("busy", name(i), i)
    assert count(memory, "busy", 1000) >= 10
    assert memory.get("0", name(0)) is None
    assert memory.get(str(10 * MAX_SHARES - 1), name(0)) == 0


def test_what_is_larger_than_a_share_is_not_kept() -> None:
    memory = TenantMemory[int](MAX_SHARES * 10)
    memory.put("a", name(1), 1, 10)
    memory.put("a", name(1), 1, 11)
    assert memory.get("a", name(1)) is None
    assert memory.size == 0


@given(
    st.integers(1, 80),
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.integers(0, 9), st.integers(1, 6), st.booleans()), max_size=80
    ),
)
def test_it_is_never_larger_than_it_may_be(capacity: int, steps: list[tuple[str, int, int, bool]]) -> None:
    memory, sizes = TenantMemory[int](capacity), dict[tuple[str, int], int]()
    for tenant, number, size, is_put in steps:
        if is_put:
            memory.put(tenant, name(number), number, size)
            sizes[tenant, number] = size
        else:
            memory.remove(tenant, name(number))
        kept = {key: one for key, one in sizes.items() if memory.get(key[0], name(key[1])) is not None}
        assert memory.size == sum(kept.values()) <= capacity
