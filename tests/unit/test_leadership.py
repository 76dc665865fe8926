"""The states of leadership, with a clock that the tests set, up to the edge of each timeout."""

import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import pytest
import redis
from redis.exceptions import LockNotOwnedError

from redbeat.beat.heartbeat import Errands
from redbeat.beat.holder import Holder, new_token, read_holder
from redbeat.beat.leadership import Leadership, Timeouts
from redbeat.beat.lock import LeaderLock
from redbeat.errors import BeatInitError
from redbeat.store.keys import OwnKeys
from redbeat.store.storage import Storage
from support.fakes import fake_client, fake_client_without_lua
from support.waiting import wait_until

OWN_KEYS = OwnKeys("s", "t", "c", "r")

KEY = "redbeat::lock"
FAILOVER = 15
LIFETIME = 1500.0


@dataclass
class Beat:
    """A candidate with its own leadership and a clock that is set by hand."""

    client: Any
    lock_key: str | None = KEY
    lock_timeout: float = LIFETIME
    lock: Any = None
    now: float = 1000.0
    application: str = ""
    failover: float = FAILOVER
    leadership: Leadership = field(init=False)

    def __post_init__(self) -> None:
        self.leadership = Leadership(
            self,
            lambda: Storage(self.client, OWN_KEYS),
            Timeouts(self.failover, stall=60),
            self.application,
            Errands(after_beat=self.after_beat),
            clock=lambda: self.now,
        )

    def after_beat(self) -> None:
        """Called in the heartbeat's thread."""


@pytest.fixture(params=[fake_client, fake_client_without_lua])
def client(request: pytest.FixtureRequest) -> Any:
    """A server in memory, with and without scripting."""
    return request.param()


@pytest.fixture
def leader(client: Any) -> Any:
    """A beat that leads, with a heartbeat."""
    beat = Beat(client)
    beat.leadership.campaign(with_heartbeat=True)
    assert beat.lock is not None
    yield beat
    beat.leadership.release()


@pytest.fixture
def standby(client: Any, leader: Beat) -> Beat:
    """Another beat, which waits."""
    beat = Beat(client)
    beat.leadership.campaign(with_heartbeat=False)
    assert beat.lock is None
    return beat


def silence(client: Any, seconds: float) -> None:
    """Make the lock look as if it was last renewed so many seconds ago."""
    client.pexpire(KEY, int((LIFETIME - seconds) * 1000))


def test_a_tick_before_the_campaign_is_an_attribute_error(client: Any) -> None:
    """It says which hook did not run."""
    with pytest.raises(BeatInitError, match="beat_init") as error:
        Beat(client).leadership.lead_or_wait()
    assert isinstance(error.value, AttributeError)


def test_without_a_lock_key_everybody_leads(client: Any) -> None:
    """Beats share the work through claims."""
    beat = Beat(client, lock_key=None)
    assert beat.leadership.lead_or_wait()
    assert beat.leadership.ensure_trusted()
    assert client.keys("*") == []


def test_a_token_says_who_holds_the_lock_and_when_it_was_renewed(leader: Beat, client: Any) -> None:
    """Host, process, since when, last sign of life."""
    holder = read_holder(Storage(client, OWN_KEYS), KEY)
    assert holder is not None
    assert "pid" in holder.name
    assert holder.silence is not None
    assert holder.silence < 5
    assert holder.since is not None
    assert abs(holder.since - datetime.now(timezone.utc)).total_seconds() < 5
    assert "last sign of life" in str(holder)


def test_a_token_of_2x_says_nothing_about_its_holder(client: Any) -> None:
    """A bare 32-digit hex token."""
    client.set(KEY, "fd1fba94e53d11f18cae02fc00000001", px=5000)
    holder = read_holder(Storage(client, OWN_KEYS), KEY)
    assert holder == Holder("fd1fba94e53d11f18cae02fc00000001")
    assert str(holder) == "fd1fba94e53d11f18cae02fc00000001"


@pytest.mark.parametrize("name", ["proj", "a:b@c", "größe\n", "", "x" * 500])
def test_a_token_names_the_application_in_printable_text(client: Any, name: str) -> None:
    """Enough of the name to tell it from another."""
    for token in (new_token(LIFETIME, FAILOVER, name), new_token(0, 0, name)):
        client.set(KEY, token, px=1_500_000)
        holder = read_holder(Storage(client, OWN_KEYS), KEY)
        assert holder is not None
        assert holder.application == name[:64]
        assert holder.host == socket.gethostname()
        assert token.isprintable()
        assert token.isascii()
        assert len(token) < 1000
        assert not holder.is_of_other(name)
        assert holder.is_of_other("other") == bool(name)
        assert not holder.is_of_other("")


def test_a_token_without_an_application_is_readable(client: Any) -> None:
    client.set(KEY, "host:1:0123456789abcdef:1500000:15000:1700000000", px=1_500_000)
    holder = read_holder(Storage(client, OWN_KEYS), KEY)
    assert holder is not None
    assert (holder.host, holder.pid, holder.application) == ("host", 1, "")
    assert holder.failover_timeout == FAILOVER


def test_a_standby_repeats_its_warning_that_another_application_leads(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Every few minutes."""
    client.set(KEY, new_token(LIFETIME, FAILOVER, "theirs"), px=int(LIFETIME * 1000))
    beat = Beat(client, application="ours")
    beat.leadership.campaign(with_heartbeat=False)
    for _ in range(600):
        assert not beat.leadership.lead_or_wait()
        beat.now += 1
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len([line for line in warnings if "'theirs'" in line and "'ours'" in line]) == 2


@pytest.mark.parametrize(
    "numbers", ["1500000:15000:99999999999999", f"{'9' * 400}:15000:1", f"{'9' * 5000}:1:1"]
)
def test_a_token_with_absurd_numbers_says_nothing(client: Any, numbers: str) -> None:
    """The standby waits until such a lock expires."""
    token = f"host:1:0123456789abcdef:{numbers}"
    client.set(KEY, token, px=5000)
    assert read_holder(Storage(client, OWN_KEYS), KEY) == Holder(token)
    beat = Beat(client)
    beat.leadership.campaign(with_heartbeat=False)
    assert not beat.leadership.lead_or_wait()


def test_a_silent_holder_is_replaced_once_the_failover_timeout_has_passed(
    standby: Beat, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a moment before."""
    caplog.set_level(logging.INFO, "celery.beat")
    silence(client, FAILOVER - 1)
    assert not standby.leadership.lead_or_wait()
    silence(client, FAILOVER + 0.5)
    assert standby.leadership.lead_or_wait()
    assert standby.lock.owned()
    assert "taken over from" in caplog.text


def test_a_silent_holder_whose_host_is_not_text_is_replaced(client: Any) -> None:
    """Its token is compared as it stands in Redis."""
    client.set(KEY, b"\xff:1:0123456789abcdef:1500000:15000:1", px=5000)
    beat = Beat(client)
    beat.leadership.campaign(with_heartbeat=False)
    assert beat.lock is not None


def test_a_lock_whose_token_is_not_text_is_renewed_and_released(client: Any) -> None:
    """A program may have assigned it."""
    client.set(KEY, b"\xff", px=5000)
    lock = LeaderLock(Storage(client, OWN_KEYS), KEY, LIFETIME)
    lock.token = "\udcff"
    lock.extend(LIFETIME)
    assert client.pttl(KEY) > 5000
    lock.token = "\udcfe"
    with pytest.raises(LockNotOwnedError):
        lock.release()
    lock.token = "\udcff"
    lock.release()
    assert not client.exists(KEY)


def test_the_lock_has_the_attributes_of_one_of_redis_py(leader: Beat, client: Any) -> None:
    """Programs that were written for 2.x read them."""
    lock = leader.lock
    assert (lock.name, lock.timeout) == (KEY, LIFETIME)
    assert client.get(KEY) == lock.token == lock.local.token.decode()


def test_a_holder_that_renews_at_the_last_moment_keeps_the_lock(leader: Beat, client: Any) -> None:
    """The check and the change are one step."""
    storage = Storage(client, OWN_KEYS)
    silence(client, FAILOVER + 1)
    silent = read_holder(storage, KEY)
    assert silent is not None
    leader.leadership.renew()
    rival = LeaderLock(storage, KEY, LIFETIME, FAILOVER)
    assert not rival.acquire(silent, FAILOVER)
    assert leader.lock.owned()


def test_only_one_of_two_standbys_takes_over(standby: Beat, client: Any) -> None:
    """The second finds another token."""
    storage = Storage(client, OWN_KEYS)
    silence(client, FAILOVER + 1)
    silent = read_holder(storage, KEY)
    assert silent is not None
    rivals = [LeaderLock(storage, KEY, LIFETIME, FAILOVER) for _ in range(2)]
    assert [rival.acquire(silent, FAILOVER) for rival in rivals] == [True, False]


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_holder_without_a_heartbeat_is_waited_for(client: Any, is_ours: bool) -> None:
    """2.x, or a scheduler without a heartbeat: until the lock expires."""
    client.set(KEY, new_token(0, 0) if is_ours else "fd1fba94e53d11f18cae02fc00000001", px=1000)
    beat = Beat(client)
    beat.leadership.campaign(with_heartbeat=False)
    assert not beat.leadership.lead_or_wait()
    client.delete(KEY)
    assert beat.leadership.lead_or_wait()


def test_a_lock_is_trusted_for_two_thirds_of_the_failover_timeout(
    leader: Beat, client: Any
) -> None:
    """From when the last renewal began; past that it is renewed before anything is sent."""
    client.set(KEY, "another")
    leader.now += FAILOVER * 2 / 3 - 0.01
    assert leader.leadership.ensure_trusted()
    leader.now += 0.02
    assert not leader.leadership.ensure_trusted()
    assert leader.lock is None


def test_an_untrusted_lock_that_is_still_ours_is_renewed(leader: Beat, client: Any) -> None:
    """A late heartbeat is not a reason to stop."""
    silence(client, FAILOVER - 2)
    leader.now += FAILOVER
    assert leader.leadership.ensure_trusted()
    assert client.pttl(KEY) > (LIFETIME - 2) * 1000


def test_nothing_is_sent_while_redis_cannot_confirm_the_lock(leader: Beat) -> None:
    """The beat stays leader until Redis is back."""

    class Away:
        def __getattr__(self, name: str) -> Any:
            raise redis.ConnectionError("refused")

    lock, leader.lock = (
        leader.lock,
        LeaderLock(Storage(Away(), OWN_KEYS), KEY, LIFETIME, FAILOVER),
    )
    leader.lock.token = lock.token
    leader.now += FAILOVER
    assert not leader.leadership.ensure_trusted()
    leader.lock = lock
    assert leader.leadership.ensure_trusted()


def test_a_beat_that_loses_the_lock_wakes_up_and_stands_by(leader: Beat, client: Any) -> None:
    """The heartbeat notices it."""
    client.set(KEY, "another")
    leader.leadership.heartbeat.beat()
    leader.now += FAILOVER
    leader.leadership.heartbeat.beat()
    assert leader.leadership.lost.is_set()
    assert leader.lock is None
    assert not leader.leadership.lead_or_wait()


def test_losing_an_assigned_lock_raises(client: Any) -> None:
    """Without a campaign there is no way back; subclasses catch this error from `tick`."""
    beat = Beat(client)
    beat.lock = LeaderLock(Storage(client, OWN_KEYS), KEY, LIFETIME)
    assert beat.lock.acquire()
    assert beat.leadership.lead_or_wait()
    client.delete(KEY)
    with pytest.raises(LockNotOwnedError):
        beat.leadership.lead_or_wait()


def test_a_new_lock_timeout_goes_into_the_token(leader: Beat, client: Any) -> None:
    """Otherwise a standby would mistake the shorter time to live for silence."""
    leader.lock_timeout = 20
    assert leader.leadership.lead_or_wait()
    holder = read_holder(Storage(client, OWN_KEYS), KEY)
    assert holder is not None
    assert holder.silence is not None
    assert holder.silence < 2
    assert leader.lock.owned()


def test_only_the_holder_releases_a_lock_and_may_do_so_twice(leader: Beat, client: Any) -> None:
    """A lock that another holds stays."""
    client.set(KEY, "another")
    leader.leadership.release()
    leader.leadership.release()
    assert client.get(KEY) == "another"


def test_a_heartbeat_renews_the_lock_whatever_the_main_thread_does(client: Any) -> None:
    """Nothing ticks here."""
    beat = Beat(client, failover=0.3)
    beat.leadership.campaign(with_heartbeat=True)
    beat.leadership.watchdog.expect(1e9)
    client.persist(KEY)
    beat.now += 1
    wait_until(lambda: client.pttl(KEY) > 0, 20, "a renewal")
    beat.leadership.release()
    assert client.get(KEY) is None


def test_a_stuck_main_thread_is_reported_and_its_lock_expires(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """At critical, with the place where it is stuck."""
    beat = Beat(client, lock_timeout=0.3)
    beat.leadership.campaign(with_heartbeat=True)
    beat.now += 61
    wait_until(lambda: "main thread" in caplog.text, 20, "the report")
    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "test_a_stuck_main_thread" in record.getMessage()
    wait_until(lambda: client.get(KEY) is None, 20, "the lock to expire")


def test_a_holder_may_be_silent_for_its_own_failover_timeout(client: Any) -> None:
    """During a rolling deploy, beats may have different ones."""
    patient = Beat(client, failover=60)
    patient.leadership.campaign(with_heartbeat=True)
    hasty = Beat(client)
    hasty.leadership.campaign(with_heartbeat=False)
    silence(client, 59)
    assert not hasty.leadership.lead_or_wait()
    silence(client, 61)
    assert hasty.leadership.lead_or_wait()
    patient.leadership.release()


def test_a_new_lock_key_takes_effect_at_the_next_tick(leader: Beat, client: Any) -> None:
    """The old lock is released."""
    leader.lock_key = "redbeat:other"
    assert leader.leadership.lead_or_wait()
    assert client.get(KEY) is None
    assert client.get("redbeat:other") is not None


def test_removing_the_lock_key_takes_effect_at_the_next_tick(leader: Beat, client: Any) -> None:
    """The lock is released, for beats that still want it."""
    leader.lock_key = None
    assert leader.leadership.lead_or_wait()
    assert leader.lock is None
    assert client.get(KEY) is None
    assert not leader.leadership.lost.is_set()
    rival = Beat(client)
    rival.leadership.campaign(with_heartbeat=False)
    assert rival.lock is not None


class SlowBeat(Beat):
    """A beat whose heartbeat does not end until it may go on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.is_beating, self.may_go_on = threading.Event(), threading.Event()

    def after_beat(self) -> None:
        self.is_beating.set()
        self.may_go_on.wait(60)


@pytest.fixture
def slow(client: Any) -> Iterator[SlowBeat]:
    """A leader whose heartbeat is under way."""
    beat = SlowBeat(client, failover=0.3)
    beat.leadership.campaign(with_heartbeat=True)
    beat.leadership.watchdog.expect(1e9)
    assert beat.is_beating.wait(20)
    yield beat
    beat.may_go_on.set()
    beat.leadership.release()


def test_a_leader_has_a_heartbeat_though_the_last_one_has_not_ended(
    slow: SlowBeat, client: Any
) -> None:
    """Its lock has another key."""
    slow.lock_key = "redbeat:other"
    assert slow.leadership.lead_or_wait()
    slow.leadership.watchdog.expect(1e9)
    slow.may_go_on.set()
    client.persist("redbeat:other")
    slow.now += 1
    wait_until(lambda: client.pttl("redbeat:other") > 0, 20, "a renewal")


def test_a_beat_that_regains_the_lead_has_a_heartbeat_though_the_last_one_has_not_ended(
    slow: SlowBeat, client: Any
) -> None:
    client.delete(KEY)
    assert slow.leadership.lead_or_wait()
    slow.leadership.watchdog.expect(1e9)
    slow.may_go_on.set()
    client.persist(KEY)
    slow.now += 1
    wait_until(lambda: client.pttl(KEY) > 0, 20, "a renewal")


def test_a_heartbeat_that_finds_no_lock_does_nothing(leader: Beat) -> None:
    """The main thread may just have released it."""
    leader.leadership.release()
    leader.now += FAILOVER
    assert leader.leadership.heartbeat.beat() == leader.leadership.heartbeat_interval


def test_a_late_answer_to_a_renewal_does_not_restore_the_trust(leader: Beat) -> None:
    """The heartbeat may have found the lock lost in the meantime."""
    lock, lose = leader.lock, leader.leadership.lose
    heartbeat = threading.Thread(target=lambda: lose(lock, "deleted"))

    def extend(*args: object, **options: object) -> bool:
        heartbeat.start()
        heartbeat.join()
        return True

    leader.lock.extend = extend
    leader.leadership.renew()
    assert not leader.leadership.ensure_trusted()
