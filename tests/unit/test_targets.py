"""The campaign's checker, on histories that are made up: it must find what is wrong with them."""

import pytest

from support.targets import Slot, Verdict, compare, numbered

NOON, ONE = "12:00:00", "13:00:00"
TARGETS = [Slot("a", NOON), Slot("a", ONE), Slot("b", NOON)]


def test_slots_with_one_message_each_are_in_order() -> None:
    assert compare(TARGETS, TARGETS) == Verdict()
    assert compare(TARGETS, reversed(TARGETS))


def test_nothing_due_and_nothing_sent_is_in_order() -> None:
    assert compare([], [])


@pytest.mark.parametrize("missing", TARGETS)
def test_a_slot_without_a_message_is_lost(missing: Slot) -> None:
    verdict = compare(TARGETS, [slot for slot in TARGETS if slot != missing])
    assert not verdict
    assert verdict == Verdict(lost=(missing,))


@pytest.mark.parametrize("repeated", TARGETS)
def test_a_slot_with_two_messages_is_doubled(repeated: Slot) -> None:
    verdict = compare(TARGETS, [*TARGETS, repeated])
    assert not verdict
    assert verdict == Verdict(doubled=(repeated,))


def test_each_message_too_many_is_counted() -> None:
    assert compare(TARGETS, [*TARGETS, TARGETS[0], TARGETS[0]]).doubled == (TARGETS[0],) * 2


def test_a_doubled_slot_does_not_make_up_for_a_lost_one_of_the_same_entry() -> None:
    verdict = compare(TARGETS, [TARGETS[0], TARGETS[0], TARGETS[2]])
    assert verdict == Verdict(lost=(TARGETS[1],), doubled=(TARGETS[0],))


@pytest.mark.parametrize("stranger", [Slot("a", "14:00:00"), Slot("c", NOON), Slot("a", "")])
def test_a_message_of_no_due_slot_is_one_too_many(stranger: Slot) -> None:
    assert compare(TARGETS, [*TARGETS, stranger]) == Verdict(doubled=(stranger,))


def test_a_slot_that_is_due_twice_needs_two_messages() -> None:
    twice = [TARGETS[0], TARGETS[0]]
    assert compare(twice, twice)
    assert compare(twice, twice[:1]) == Verdict(lost=(TARGETS[0],))


def test_what_is_wrong_is_listed_in_order_with_entry_and_slot() -> None:
    verdict = compare(reversed(TARGETS), [])
    assert list(map(str, verdict.lost)) == ["a at 12:00:00", "a at 13:00:00", "b at 12:00:00"]


def test_runs_that_are_only_counted_are_told_apart_by_their_numbers() -> None:
    verdict = compare(numbered({"a": 2, "b": 1}), numbered({"a": 1, "b": 3}))
    assert list(map(str, verdict.lost)) == ["a at run 2"]
    assert list(map(str, verdict.doubled)) == ["b at run 2", "b at run 3"]
