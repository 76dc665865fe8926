"""The parts of one beat, and how they are put together."""

from __future__ import annotations

from collections.abc import Callable
from logging import Logger
from typing import Any

from ..store.storage import Storage
from ..timing.instants import as_utc
from .batch import Build
from .broker import Broker
from .claims import Claims
from .clocks import WallClock
from .closing import Closing
from .delivery import Delivery
from .dispatcher import Dispatcher
from .failing import Failing
from .heartbeat import Errands
from .leadership import Leadership, Timeouts
from .ledger import Ledger
from .loader import Loader
from .loop import Loop
from .masters import Masters
from .office import Office
from .outbox import Outbox
from .pauses import Pauses
from .repeats import Repeats
from .reports import Reporter
from .rest import Rest
from .server import ServerCheck
from .settings import Settings, application_name
from .statics import StaticEntries


class Parts:
    """What a scheduler consists of.

    The scheduler itself serves as the hooks that each part calls, all looked up at each use.
    ``get_conf``, ``get_client`` and ``get_storage`` give what the application has now; ``make``
    builds an entry from what is stored; ``logger`` logs what is wrong with entries.
    """

    def __init__(
        self,
        scheduler: Any,
        get_conf: Callable[[], Settings],
        get_client: Callable[[], Any],
        get_storage: Callable[[], Storage],
        make: Build,
        logger: Logger,
    ) -> None:
        conf = get_conf()
        app, application = conf.app, application_name(conf.app)
        self.log = log = Repeats(logger)
        self.pauses = Pauses(get_conf)
        self.broker = Broker(scheduler, self.pauses)
        self.masters = Masters(
            lambda: getattr(app, "redbeat_redis", None), lambda: self.broker.channel
        )
        self.outbox = Outbox(self.broker, get_storage)
        reporter = Reporter(get_storage, lambda: self.outbox.guarantee)
        self.ledger = Ledger(reporter, Failing(get_storage))
        self.leadership = Leadership(
            scheduler,
            get_storage,
            Timeouts(conf.failover_timeout, conf.stall_timeout),
            application,
            Errands(self.ledger.reporter.write, self.masters.of_schedule.look),
        )
        self.server = ServerCheck(get_conf, get_client, get_storage)
        self.loader = Loader(make, get_storage, log)
        self.statics = StaticEntries(
            scheduler,
            get_conf,
            get_storage,
            application,
            lambda: self.leadership.watchdog.expect(0),
        )
        self.office = Office(
            scheduler,
            get_conf,
            get_storage,
            self.loader.build,
            self.leadership,
            self.statics,
            self.server,
            self.ledger,
        )
        self.rest = Rest(get_conf, get_storage, self.leadership, WallClock())
        claims = Claims(get_conf, get_storage, self.masters.of_schedule, log)
        delivery = Delivery(
            scheduler, self.office, self.masters, claims, self.broker, self.outbox, log
        )
        self.dispatcher = Dispatcher(
            scheduler,
            self.office,
            self.statics,
            self.masters,
            claims,
            self.loader,
            delivery,
            self.broker,
            self.ledger,
        )
        self.loop = Loop(
            scheduler, self.office, self.leadership, self.masters, self.pauses, self.rest
        )
        self.closing = Closing(
            self.dispatcher,
            claims,
            self.leadership,
            self.ledger.reporter,
            lambda: as_utc(app.now()),
        )
