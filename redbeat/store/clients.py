"""The client of the schedule: which kind the settings ask for, and how it is made.

No round trips, except for the client of a cluster: redis-py asks for its nodes.
"""

from __future__ import annotations

import inspect
import os
import ssl
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import redis
import redis.cluster
import redis.sentinel
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from ..errors import SettingError
from .addresses import sentinels_among, startup_nodes_in
from .escaping import one_line
from .options import (
    CHECKED_OPTIONS,
    OWN_OPTIONS,
    POOL_OPTIONS,
    SECONDS_OPTIONS,
    SENTINEL_BROKER_OPTIONS,
    SENTINEL_POOL_OPTIONS,
    TRANSPORT_OPTIONS,
)
from .retrying import direct, is_outage, retries, without_secrets
from .urls import node_in, sanitized, scheme_of, sentinels_in, single_url

#: Seconds after which a server that does not answer counts as away, unless the options say so.
SOCKET_TIMEOUT = 5


class ClientSettings(Protocol):
    """What a client is made from: the settings that start with ``redbeat_redis_``."""

    redis_url: Any
    redis_use_ssl: Any
    redbeat_redis_options: dict[str, Any]
    #: Whether TLS was set up for the broker and not for the schedule.
    ssl_is_inherited: bool
    #: Whether the options were set for the broker and not for the schedule.
    options_are_inherited: bool

    @property
    def options_are_namespaced(self) -> bool:
        """Whether the options were set under Celery's namespace only."""


class Classes(NamedTuple):
    """The classes to make a client of.

    People patch them in ``redbeat.schedulers`` or in redis-py. A class that is redis-py's own is
    therefore looked up there once more, when it is called.
    """

    redis: Any
    sentinel: Any
    retrying: Any


class Connected(NamedTuple):
    """A client, and what the user should hear of the options that it was made from.

    ``sentinels`` is the ``redis.sentinel.Sentinel`` that the client follows, if any. ``left_out``
    are the names of broker options that mean something else to the client, worth a debug line.
    """

    client: Any
    sentinels: Any
    left_out: list[str]
    warnings: list[str]


class ForkSafeLock:
    """A lock that is free in a forked child, whoever held it in the parent: use ``current``.

    Reentrant, since a signal handler may need it while the thread that it interrupted holds it.
    """

    def __init__(self) -> None:
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Replace the lock by a free one."""
        self.current = threading.RLock()


class StartupNode(dict[str, Any], redis.cluster.ClusterNode):
    """A node of a cluster as our settings write it, a dict, and as redis-py wants it."""

    def __init__(self, host: str, port: str | int) -> None:
        dict.__init__(self, host=host, port=int(port))
        redis.cluster.ClusterNode.__init__(self, host, int(port))  # type: ignore[no-untyped-call]

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none
        return hash(self.name)


def connect(settings: ClientSettings, classes: Classes) -> Connected:
    """Make the client that the settings ask for.

    The client of a cluster connects at once, so with a ``retry_period`` making it is retried too.

    Raises:
        SettingError: The settings do not name a Redis, or an option cannot work.
    """
    factory = _factory(settings, classes)
    period = factory.option("retry_period")
    given = {
        name: value
        for name, value in settings.redbeat_redis_options.items()
        if name not in OWN_OPTIONS
    }
    unwanted = factory.unwanted(set(given))
    options = {name: value for name, value in given.items() if name not in unwanted}
    if period is None:
        client = factory.make(options)
    else:
        client = classes.retrying(period, retries(period)(factory.make, options))
    names, warnings = sorted(unwanted), []
    if settings.redis_use_ssl and not settings.ssl_is_inherited and factory.scheme == "redis":
        warnings.append(
            "redbeat_redis_use_ssl is set, but the connection to Redis is not encrypted: "
            "redbeat_redis_url begins with redis://. Use rediss://."
        )
    if names and not settings.options_are_inherited:
        # Only the names: the values may be secret.
        warnings.append(
            "The client of the schedule does not know these options in redbeat_redis_options: "
            f"{', '.join(names)}. They are ignored. Check their spelling, or remove them."
        )
    left_out = names if settings.options_are_inherited else []
    return Connected(client, factory.sentinels, left_out, warnings)


class ServerFactory:
    """Makes the client of a single server."""

    def __init__(self, settings: ClientSettings, classes: Classes) -> None:
        self.settings = settings
        self.classes = classes
        self.url: Any = settings.redis_url
        self.scheme = scheme_of(self.url)
        self.sentinels: Any = None

    def option(self, name: str) -> Any:
        """The option, checked; ``None`` if it is not set."""
        return CHECKED_OPTIONS[name].check(self.settings.redbeat_redis_options.get(name))

    def unwanted(self, names: set[str]) -> set[str]:
        """The options among these that are not passed to the client.

        2.x passed on neither the broker's options nor those under Celery's namespace; of the
        latter, what the client knows is passed on.
        """
        if self.settings.options_are_inherited:
            return names
        if self.settings.options_are_namespaced:
            return self.unknown(names)
        return names & TRANSPORT_OPTIONS

    def unknown(self, names: set[str]) -> set[str]:
        """The options among these that neither a connection nor its pool takes."""
        connection = self.settings.redbeat_redis_options.get("connection_class")
        bases = (connection or self.connection_class).__mro__
        constructors = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)]
        known = {name for each in constructors for name in inspect.signature(each).parameters}
        return names - known - POOL_OPTIONS

    @property
    def connection_class(self) -> type:
        """The class of the client's connections."""
        if self.scheme == "rediss":
            return redis.SSLConnection
        is_tcp = self.scheme == "redis"
        return redis.Connection if is_tcp else redis.UnixDomainSocketConnection

    @property
    def ssl_options(self) -> dict[str, Any]:
        """redis-py's ``ssl_*`` options; certificates are verified unless the settings say no."""
        use_ssl = self.settings.redis_use_ssl
        given = use_ssl if isinstance(use_ssl, Mapping) else {}
        options = {"ssl_cert_reqs": ssl.CERT_REQUIRED, **given}
        if isinstance(options["ssl_cert_reqs"], str):
            # Celery writes the names of the constants.
            options["ssl_cert_reqs"] = options["ssl_cert_reqs"].removeprefix("CERT_").lower()
        return options

    def make(self, options: dict[str, Any]) -> Any:
        """Make the client with these keyword arguments.

        Raises:
            SettingError: They or the URL cannot work. The message shows no password.
        """
        encoding = CHECKED_OPTIONS["encoding"]
        if not encoding.accepts(options.get("encoding", "utf-8")):
            raise encoding.refusal(options["encoding"])
        try:
            return self.create(options)
        except SettingError:
            raise
        except (ValueError, RedisClusterException) as exc:
            if is_outage(exc):
                raise without_secrets(exc) from None
            # The URL parser's own message may quote a part of the password.
            is_safe = isinstance(exc, RedisClusterException)
            reason = one_line(f": {without_secrets(exc)}") if is_safe else ""
            raise SettingError(
                f"redbeat_redis_url {sanitized(self.url)!r} cannot be used{reason}. Check host, "
                "port and query, and quote the special characters of its password "
                "(urllib.parse.quote)."
            ) from None

    def create(self, options: dict[str, Any]) -> Any:
        """Make the client, whatever the errors."""
        given = self.classes.redis
        client_class = redis.Redis if given is Redis else given
        return _bounded(self.from_url(client_class, options))

    def from_url(self, client_class: Any, options: dict[str, Any]) -> Any:
        """Make a client from the URL, whose scheme says whether to use TLS."""
        tls = self.ssl_options if self.scheme == "rediss" else {}
        return client_class.from_url(
            single_url(self.url), decode_responses=True, **{**tls, **options}
        )


class ClusterFactory(ServerFactory):
    """Makes the client of a cluster from the URL of one of its nodes."""

    def unwanted(self, names: set[str]) -> set[str]:
        """Options of transports; the broker's own are right for its cluster, and are passed on."""
        return set() if self.settings.options_are_inherited else names & TRANSPORT_OPTIONS

    def create(self, options: dict[str, Any]) -> Any:
        """Make the client; it connects at once."""
        return self.from_url(redis.RedisCluster, options)


class StartupNodesFactory(ClusterFactory):
    """Makes the client of a cluster from its ``startup_nodes``."""

    def create(self, options: dict[str, Any]) -> Any:
        """Make the client; it connects at once."""
        url = node_in(self.url)
        default = {"host": url.pop("host", "localhost"), "port": url.pop("port", 30001)}
        given = self.settings.redbeat_redis_options.get("startup_nodes")
        nodes: list[redis.cluster.ClusterNode] = [
            StartupNode(**node) for node in startup_nodes_in(given, default)
        ]
        # A cluster has one database.
        url.pop("db", None)
        # A broker with TLS beside a cluster without it is no reason to encrypt.
        is_encrypted = self.settings.redis_use_ssl and not self.settings.ssl_is_inherited
        tls = {"ssl": True, **self.ssl_options} if is_encrypted else {}
        arguments = {**tls, **url, **options}
        return redis.cluster.RedisCluster(startup_nodes=nodes, decode_responses=True, **arguments)


class SentinelFactory(ServerFactory):
    """Makes the client of the master that sentinels name.

    All options are for the data nodes, except ``sentinel_kwargs``.
    """

    def unwanted(self, names: set[str]) -> set[str]:
        """Of the broker's options those that mean something else to the data nodes."""
        if self.settings.options_are_inherited:
            return names - SENTINEL_BROKER_OPTIONS
        return self.unknown(names) - SENTINEL_POOL_OPTIONS

    @property
    def connection_class(self) -> type:
        """The class of the connections to the data nodes."""
        is_encrypted = self.uses_tls or self.settings.redbeat_redis_options.get("ssl")
        return redis.SSLConnection if is_encrypted else redis.Connection

    @property
    def uses_tls(self) -> bool:
        """Whether the data nodes speak TLS.

        TLS options of the broker count; that it just uses TLS counts for its own URLs only.
        """
        use_ssl = self.settings.redis_use_ssl
        if not self.settings.ssl_is_inherited or isinstance(use_ssl, Mapping):
            return bool(use_ssl)
        return use_ssl is True and self.scheme == "sentinel"

    def create(self, options: dict[str, Any]) -> Any:
        """Make the client; it asks the sentinels when it connects."""
        in_url, of_url = sentinels_in(self.url)
        in_options = sentinels_among(self.settings.redbeat_redis_options.get("sentinels"))
        master = self.option("service_name") or self.option("master_name")
        if self.scheme == "redis-sentinel":
            master = master or "master"
            of_url = {} if in_options else of_url
        addresses = in_options or in_url
        if not master or not addresses:
            raise SettingError(
                f"redbeat_redis_url {sanitized(self.url)!r} needs the addresses of the sentinels, "
                "in the URL or in redbeat_redis_options['sentinels'], and the name of the master, "
                "in redbeat_redis_options['master_name']."
            )
        tls = {"ssl": True, **self.ssl_options} if self.uses_tls else {}
        arguments = {**tls, **of_url, **options}
        arguments.pop("master_name", None)
        for_sentinels = self.option("sentinel_kwargs")
        given = self.classes.sentinel
        sentinel_class: Any = redis.sentinel.Sentinel if given is Sentinel else given
        self.sentinels = sentinel_class(
            addresses, sentinel_kwargs=for_sentinels, decode_responses=True, **arguments
        )
        for sentinel in self.sentinels.sentinels:
            _bound_sentinel(sentinel, for_sentinels or {}, arguments)
        return _bounded(self.sentinels.master_for(master))


FACTORIES: dict[str, type[ServerFactory]] = {
    "redis": ServerFactory,
    "rediss": ServerFactory,
    "unix": ServerFactory,
    "redis+socket": ServerFactory,
    "redis-cluster": StartupNodesFactory,
    "redis-sentinel": SentinelFactory,
    "sentinel": SentinelFactory,
}


def _factory(settings: ClientSettings, classes: Classes) -> ServerFactory:
    url = settings.redis_url
    scheme = scheme_of(url)
    if scheme not in FACTORIES:
        got = repr(sanitized(url)) if url else "none"
        hint = " (no scheme: write redis://...)" if url and not scheme else ""
        raise SettingError(
            f"redbeat_redis_url must be the URL of a Redis server ({', '.join(FACTORIES)}), got "
            f"{got}{hint}. Set redbeat_redis_url: the schedule cannot live in another kind of "
            "broker."
        )
    if settings.redbeat_redis_options.get("cluster") and scheme != "redis-cluster":
        return ClusterFactory(settings, classes)
    return FACTORIES[scheme](settings, classes)


def _bound_sentinel(sentinel: redis.Redis, given: Mapping[str, Any], options: Any) -> None:
    """Set the time-outs of a sentinel; redis-py does so only where nothing else is given."""
    inherited = [name for name in options if name.startswith("socket_") and name not in given]
    sentinel.get_connection_kwargs().update({name: options[name] for name in inherited})
    if "retry" not in given:
        # The next one is asked instead.
        _bounded(sentinel).set_retry(Retry(NoBackoff(), 0))


def _bounded(client: Any) -> Any:
    """The client, with the time-out that only newer versions of redis-py set themselves."""
    own = inspect.signature(AbstractConnection.__init__).parameters.get("socket_timeout")
    if (own is None or own.default is None) and isinstance(client, redis.client.Redis):
        options = client.get_connection_kwargs()
        if options.get("socket_timeout") is None:
            options["socket_timeout"] = SOCKET_TIMEOUT
    return client


def check_options(client: Any) -> None:
    """Refuse options that redis-py does not know, or cannot use; no round trip.

    redis-py itself notices when it first connects, with an error that names no setting.

    Raises:
        SettingError: There is such an option.
    """
    # A cluster has no pool, and what is injected may be anything.
    pool = getattr(direct(client), "connection_pool", None)
    if not isinstance(pool, redis.connection.ConnectionPool):
        return
    options = pool.connection_kwargs
    for name in SECONDS_OPTIONS:
        CHECKED_OPTIONS[name].check(options.get(name))
    try:
        pool.connection_class(**options)
    except (TypeError, ValueError, RedisError) as exc:
        reason = str(exc).rstrip(".")
        for value in options.values():
            if isinstance(value, str) and value:
                reason = reason.replace(value, "**")
        raise SettingError(
            "The Redis client refuses the options in redbeat_redis_options, "
            f"redbeat_redis_use_ssl or the query of redbeat_redis_url: {reason}. "
            "Check their spelling and their values."
        ) from None
