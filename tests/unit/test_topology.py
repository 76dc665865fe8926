"""Which keys one script may touch, on one server and where keys have slots."""

import pytest

from redbeat.store import topology
from redbeat.store.keys import hash_tag
from redbeat.store.records import Outcome
from redbeat.store.topology import Topology

ONE_SERVER = Topology("redbeat::schedule")
TAGGED = Topology("{redbeat}::schedule", is_spread=True)
UNTAGGED = Topology("redbeat::schedule", is_spread=True)


class Cluster:
    """As much of a client of Redis Cluster as tells it from others."""

    nodes_manager = None


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        ("redbeat:a", None),
        ("{redbeat}:a", "redbeat"),
        ("x{y}{z}", "y"),
        ("{}a", None),
        ("{a", None),
    ],
)
def test_the_first_hash_tag_decides_on_the_slot_of_a_key(key: str, tag: str | None) -> None:
    assert hash_tag(key) == tag


def test_the_class_of_a_client_shows_a_cluster() -> None:
    assert Topology.of(Cluster(), "s") == Topology("s", is_cluster=True, is_spread=True)
    assert Topology.of(object(), "s") == Topology("s")


def test_one_server_changes_entries_together_and_as_one_transaction() -> None:
    assert ONE_SERVER.has_transactions
    assert ONE_SERVER.groups(["a", "b", "c"]) == [["a", "b", "c"]]


def test_a_hash_tag_keeps_entries_together_where_keys_are_spread() -> None:
    assert TAGGED.groups(["a", "b"]) == [["a", "b"]]
    assert not TAGGED.has_transactions


def test_without_a_hash_tag_spread_entries_are_changed_one_by_one() -> None:
    assert UNTAGGED.groups(["a", "b"]) == [["a"], ["b"]]


def test_no_script_changes_more_entries_than_others_can_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topology, "SCRIPT_ENTRIES", 2)
    assert ONE_SERVER.groups([1, 2, 3]) == [[1, 2], [3]]


def test_an_entry_without_the_hash_tag_of_the_schedule_is_changed_alone() -> None:
    ours, also_ours = Outcome("{redbeat}:a", 1), Outcome("{redbeat}:b", 2)
    foreign = Outcome("other:c", 3)
    assert TAGGED.groups_of_outcomes([ours, foreign, also_ours]) == [[ours, also_ours], [foreign]]
    assert ONE_SERVER.groups_of_outcomes([ours, foreign]) == [[ours, foreign]]
