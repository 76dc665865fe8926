"""The ways in which people run Redis: real servers, and the settings that reach each of them.

All start the same program, that of `support.servers.find_server`; so the environment variable
`REDBEAT_TEST_SERVER` (`redis-server`, `valkey-server`, or a path) chooses for sentinels and nodes
of a cluster as well.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import redis
import trustme

from support.ports import LOOPBACK, free_cluster_port, free_port
from support.servers import RedisServer, TlsNotFoundError, find_server, knows_tls
from support.waiting import wait_until

SERVICE = "the-schedule"
SLOTS = 16384
MASTERS = 3

# Nothing that a server has answered to is gone when it is killed; replicas are fed at once.
KEEPING_ALL = {"appendonly": "yes", "appendfsync": "always", "repl_diskless_sync_delay": 0}

# Milliseconds until a master that is silent counts as down: short, and yet longer than what a busy
# machine may hold up a process that is well.
SENTINEL_PATIENCE = 1500
CLUSTER_PATIENCE = 3000

# Seconds for an election and all that has to spread after it.
ELECTION = 40


class Topology(ABC):
    """Servers that hold a schedule together, started and stopped together.

    Args:
        directory: Where the servers keep what they have.
    """

    #: Which keys the application uses.
    prefix = "redbeat:"

    #: Whether the program must have been built with TLS.
    needs_tls = False

    #: Whether the data outlive the loss of a master by another server that has a copy of them.
    is_replicated = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    @abstractmethod
    def servers(self) -> list[RedisServer]:
        """The servers that hold data, masters and replicas."""

    @property
    @abstractmethod
    def address(self) -> dict[str, Any]:
        """The Celery settings that say where the schedule is."""

    @property
    def settings(self) -> dict[str, Any]:
        """The Celery settings with which an application uses these servers; `repr` keeps them."""
        return {"redbeat_redis_options": {}, "redbeat_key_prefix": self.prefix} | self.address

    def start(self) -> "Topology":
        """Start all servers, and wait until they serve together."""
        for server in self.servers:
            server.start()
        return self

    def stop(self) -> None:
        """End all servers."""
        for server in self.servers:
            server.stop()

    def empty(self) -> None:
        """Forget all data."""
        for master in self.masters():
            with master.client() as client:
                client.flushall()

    def masters(self) -> list[RedisServer]:
        """The servers that take writes."""
        return [server for server in self.servers if role(server) == "master"]

    def master_of(self, key: str) -> RedisServer:
        """The server that takes writes to this key."""
        (master,) = self.masters()
        return master

    def count_connections(self) -> int:
        """How many connections the servers have accepted since they were started."""
        total = 0
        for server in self.servers:
            with server.client() as client:
                total += client.info("stats")["total_connections_received"]
        return total

    def wait_until_replicated(self) -> None:
        """Wait until the replicas have what the masters have acknowledged so far."""
        if self.is_replicated:
            for master in self.masters():
                wait_until(partial(has_current_replica, master), 10, "a replica")

    @abstractmethod
    def lose_master_of(self, key: str) -> None:
        """Kill -9 the master that has this key, and wait until the key can be written again."""


def role(server: RedisServer) -> str:
    """Whether a server is a `master`, a `slave`, or `dead`."""
    if not server.is_running():
        return "dead"
    with server.client() as client:
        return str(client.info("replication")["role"])


def has_current_replica(master: RedisServer) -> bool:
    """Whether one replica at least has all that the master has."""
    with master.client() as client:
        facts = client.info("replication")
    offset = facts["master_repl_offset"]
    replicas = [facts[f"slave{number}"] for number in range(facts["connected_slaves"])]
    return any(each["state"] == "online" and each["offset"] >= offset for each in replicas)


class Single(Topology):
    """One server, reached over TCP."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.server = RedisServer(directory / "server", **KEEPING_ALL)

    @property
    def servers(self) -> list[RedisServer]:
        """The one server."""
        return [self.server]

    @property
    def address(self) -> dict[str, Any]:
        """A `redis://` URL."""
        return {"redbeat_redis_url": self.server.url()}

    def lose_master_of(self, key: str) -> None:
        """Kill the server, and start it again with its data."""
        self.server.kill()
        self.server.start()


class UnixSocket(Single):
    """One server, reached over a unix socket."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.server = RedisServer(directory / "server", unixsocket="s", **KEEPING_ALL)

    @property
    def address(self) -> dict[str, Any]:
        """A `unix://` URL."""
        return {"redbeat_redis_url": f"unix://{self.server.directory / 's'}"}


class Certificates:
    """Those of servers on the loopback address and of their clients, which must have one.

    Attributes:
        authority: The file with the certificate of their issuer.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.authority = directory / "authority.pem"
        self._server = directory / "server.pem"
        self._client = directory / "client.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        for identity, path in [(LOOPBACK, self._server), ("beat@proj.invalid", self._client)]:
            authority.issue_cert(identity).private_key_and_cert_chain_pem.write_to_path(path)

    @property
    def directives(self) -> dict[str, Any]:
        """Directives of servers; replicas and sentinels use TLS among themselves, too."""
        return {
            "tls_cert_file": self._server,
            "tls_key_file": self._server,
            "tls_ca_cert_file": self.authority,
            "tls_auth_clients": "yes",
            "tls_replication": "yes",
        }

    @property
    def options(self) -> dict[str, Any]:
        """Options of clients."""
        return {
            "ssl_ca_certs": str(self.authority),
            "ssl_certfile": str(self._client),
            "ssl_keyfile": str(self._client),
        }


class Tls(Single):
    """One server, reached over TLS, that demands a certificate of its clients."""

    needs_tls = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.certificates = Certificates(directory)
        self.tls_server = TlsServer(
            directory / "server", **self.certificates.directives, **KEEPING_ALL
        )
        self.server = self.tls_server

    @property
    def address(self) -> dict[str, Any]:
        """A `rediss://` URL, and the files with the certificates."""
        return {
            "redbeat_redis_url": f"rediss://{LOOPBACK}:{self.tls_server.tls_port}/0",
            "redbeat_redis_use_ssl": self.certificates.options,
        }


class TlsServer(RedisServer):
    """A server with a second port, which speaks TLS; on the first one the tests look behind it."""

    tls_port = 0

    def _defaults(self, port: int) -> dict[str, Any]:
        if not self.port:
            self.tls_port = free_port()
        return super()._defaults(port) | {"tls-port": self.tls_port}


def port_of(server: RedisServer) -> int:
    """The port at which clients and other servers are to reach a server."""
    return server.tls_port if isinstance(server, TlsServer) else server.port


class Sentinel(Topology):
    """A master, a replica, and three sentinels that watch them."""

    is_replicated = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._data: list[RedisServer] = []
        self.sentinels: list[SentinelServer] = []

    @property
    def servers(self) -> list[RedisServer]:
        """The first master and its replica."""
        return self._data

    @property
    def address(self) -> dict[str, Any]:
        """The `redis-sentinel://` form, with the sentinels in the options."""
        return {
            "redbeat_redis_url": "redis-sentinel://",
            "redbeat_redis_options": {
                "sentinels": [(LOOPBACK, port_of(sentinel)) for sentinel in self.sentinels],
                "service_name": SERVICE,
                "socket_timeout": 5,
            },
        }

    def start(self) -> "Topology":
        """Start master, replica and sentinels, and wait until they know each other."""
        master = self._make_data_server("master")
        self._data.append(master.start())
        replica = self._make_data_server("replica", replicaof=f"{LOOPBACK} {port_of(master)}")
        self._data.append(replica.start())
        # A sentinel asks a master for its replicas at first sight, and then every ten seconds.
        wait_until(lambda: has_current_replica(master), 20, "a replica")
        for number in range(3):
            sentinel = self._make_sentinel(f"sentinel-{number}", port_of(master))
            self.sentinels.append(sentinel)
            sentinel.start()
        for sentinel in self.sentinels:
            wait_until(sentinel.knows_all, 30, "sentinels that know each other")
        return self

    def _make_data_server(self, name: str, **settings: Any) -> RedisServer:
        return RedisServer(self.directory / name, **settings, **KEEPING_ALL)

    def _make_sentinel(self, name: str, master_port: int) -> "SentinelServer":
        return SentinelServer(self.directory / name, master_port)

    def stop(self) -> None:
        """End the sentinels, and then what they watch."""
        for sentinel in self.sentinels:
            sentinel.stop()
        super().stop()

    def lose_master_of(self, key: str) -> None:
        """Kill the master, and wait until the sentinels have promoted the replica and agree."""
        self.lose(self.master_of(key))

    def lose(self, master: RedisServer) -> None:
        """The same, at once, where the master is known."""
        master.kill()
        wait_until(self._has_master, ELECTION, "a new master")
        (promoted,) = self.masters()
        for sentinel in self.sentinels:
            wait_until(partial(sentinel.names, promoted), ELECTION, "sentinels that agree")

    def promote(self, by: int = 0) -> RedisServer:
        """Have a sentinel replace the master, which lives; gives the new one, named by all.

        The old one becomes a replica some ten seconds later, and takes writes until then.
        """
        (old,) = self.masters()
        with self.sentinels[by].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)
        (new,) = (server for server in self.servers if server is not old)
        for sentinel in self.sentinels:
            wait_until(partial(sentinel.names, new), ELECTION, "sentinels that agree")
        return new

    def fail_over(self, by: int = 0) -> None:
        """The same, and wait until the old master is a replica: the next failover needs one."""
        new = self.promote(by)
        wait_until(partial(self._has_only_master, new), ELECTION, "one master, with a replica")

    def bring_back(self, server: RedisServer) -> None:
        """Start a master that was lost again, as a replica of the one that took its place."""
        (master,) = self.masters()
        server.settings["replicaof"] = f"{LOOPBACK} {port_of(master)}"
        server.start()

    def wait_until_whole(self) -> None:
        """Wait until a failover is possible: all sentinels see a replica that has everything."""
        wait_until(self._has_replica, ELECTION, "a master with a replica that is current")
        for sentinel in self.sentinels:
            wait_until(sentinel.sees_replica, ELECTION, "sentinels that see the replica")

    def _has_replica(self) -> bool:
        with contextlib.suppress(redis.ConnectionError):
            masters = self.masters()
            return len(masters) == 1 and has_current_replica(masters[0])
        return False

    def _has_only_master(self, master: RedisServer) -> bool:
        # A server that gets another role cuts its clients.
        with contextlib.suppress(redis.ConnectionError):
            return self.masters() == [master] and has_current_replica(master)
        return False

    def _has_master(self) -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return bool(self.masters())
        return False

    def count_connections(self) -> int:
        """Those to the sentinels are counted too."""
        total = super().count_connections()
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                total += client.info("stats")["total_connections_received"]
        return total


class SentinelServer(RedisServer):
    """One sentinel for the master at this port."""

    options = ("--sentinel",)

    def __init__(self, directory: Path, master_port: int, **settings: Any) -> None:
        watched = f"monitor {SERVICE} {LOOPBACK} {master_port} 2"
        patience = f"down-after-milliseconds {SERVICE} {SENTINEL_PATIENCE}"
        retry = f"failover-timeout {SERVICE} 5000"
        super().__init__(directory, sentinel=[watched, patience, retry], **settings)

    def _defaults(self, port: int) -> dict[str, Any]:
        kept = ("bind", "port", "tls-port", "dir", "logfile")
        return {name: value for name, value in super()._defaults(port).items() if name in kept}

    def names(self, master: RedisServer) -> bool:
        """Whether this sentinel sends clients to this server."""
        with self.client() as client:
            return bool(client.sentinel_master(SERVICE)["port"] == port_of(master))

    def sees_replica(self) -> bool:
        """Whether this sentinel would promote the replica if the master were lost now."""
        with self.client() as client:
            master = client.sentinel_master(SERVICE)
            replicas = client.sentinel_slaves(SERVICE)
        return not master["is_sdown"] and all(
            not each["is_sdown"]
            and not each["is_disconnected"]
            and each["role-reported"] == "slave"
            and each["master-link-status"] == "ok"
            for each in replicas
        )

    def knows_all(self) -> bool:
        """Whether this sentinel knows the replica and the two other sentinels."""
        with self.client() as client:
            master = client.sentinel_master(SERVICE)
        return bool(master["num-slaves"] == 1 and master["num-other-sentinels"] == 2)


class GuardedSentinel(Sentinel):
    """The same, where a master takes no writes without a replica that hears of them."""

    def _make_data_server(self, name: str, **settings: Any) -> RedisServer:
        guard = {"min_replicas_to_write": 1, "min_replicas_max_lag": 10}
        return super()._make_data_server(name, **settings, **guard)


class TlsSentinel(Sentinel):
    """The same, where all speak TLS: with the client, as replicas, and among sentinels."""

    needs_tls = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.certificates = Certificates(directory)

    @property
    def address(self) -> dict[str, Any]:
        """The TLS options twice: for the data nodes, and for the sentinels."""
        address = super().address
        for_sentinels = {"ssl": True, **self.certificates.options}
        return {
            **address,
            "redbeat_redis_use_ssl": self.certificates.options,
            "redbeat_redis_options": {
                **address["redbeat_redis_options"],
                "sentinel_kwargs": for_sentinels,
            },
        }

    def _make_data_server(self, name: str, **settings: Any) -> RedisServer:
        directives = self.certificates.directives
        return TlsServer(self.directory / name, **directives, **settings, **KEEPING_ALL)

    def _make_sentinel(self, name: str, master_port: int) -> SentinelServer:
        return TlsSentinelServer(self.directory / name, master_port, **self.certificates.directives)


class TlsSentinelServer(SentinelServer, TlsServer):
    """A sentinel with a second port, which speaks TLS and is the one that it tells of."""


class Cluster(Topology):
    """Three masters with a replica each; reached by the `redis-cluster://` form."""

    is_replicated = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._nodes = [ClusterNode(directory / f"node-{number}") for number in range(2 * MASTERS)]

    @property
    def servers(self) -> list[RedisServer]:
        """The nodes, those that were masters at first before their replicas."""
        return list(self._nodes)

    @property
    def address(self) -> dict[str, Any]:
        """The `redis-cluster://` form, with all nodes in the options."""
        nodes = [{"host": LOOPBACK, "port": node.port} for node in self._nodes]
        return {
            "redbeat_redis_url": "redis-cluster://",
            "redbeat_redis_options": {"startup_nodes": nodes},
        }

    def start(self) -> "Topology":
        """Start the nodes, and join them to a cluster."""
        super().start()
        masters, replicas = self._nodes[:MASTERS], self._nodes[MASTERS:]
        self._share_slots(masters)
        self._introduce_nodes()
        for master, replica in zip(masters, replicas, strict=True):
            replica.ask("REPLICATE", master.node_id)
        wait_until(self._is_well, 30, "a cluster that is well")
        return self

    def _share_slots(self, masters: list["ClusterNode"]) -> None:
        bounds = [number * SLOTS // len(masters) for number in range(len(masters) + 1)]
        for number, (master, bound) in enumerate(zip(masters, pairwise(bounds), strict=True)):
            master.ask("SET-CONFIG-EPOCH", number + 1)
            master.ask("ADDSLOTS", *range(*bound))

    def _introduce_nodes(self) -> None:
        for node in self._nodes[1:]:
            node.ask("MEET", LOOPBACK, self._nodes[0].port)
        for node in self._nodes:
            wait_until(node.knows_all, 30, "nodes that know each other")

    def _is_well(self) -> bool:
        return all(node.is_served() for node in self._living())

    def master_of(self, key: str) -> RedisServer:
        """The node that holds the slot of this key."""
        return self._holder_of(self._slot_of(key))

    def _slot_of(self, key: str) -> int:
        return int(self._living()[0].ask("KEYSLOT", key))

    def _holder_of(self, slot: int) -> "ClusterNode":
        return next(node for node in self._living() if node.holds(slot))

    def _living(self) -> list["ClusterNode"]:
        return [node for node in self._nodes if node.is_running()]

    def lose_master_of(self, key: str) -> None:
        """Kill the node that holds the key's slot, and wait until its replica is promoted."""
        slot = self._slot_of(key)
        self._holder_of(slot).kill()
        wait_until(lambda: any(node.holds(slot) for node in self._living()), ELECTION, "a master")
        wait_until(self._is_well, ELECTION, "a cluster that is well")

    def move_slot_of(self, key: str) -> None:
        """Give the slot of this key to another master, key by key, as a resharding does."""
        slot = self._slot_of(key)
        source = self._holder_of(slot)
        masters = [node for node in self._living() if node.is_master()]
        target = next(node for node in masters if node is not source)
        target.ask("SETSLOT", slot, "IMPORTING", source.node_id)
        source.ask("SETSLOT", slot, "MIGRATING", target.node_id)
        while moved := source.ask("GETKEYSINSLOT", slot, 1):
            with source.client() as client:
                client.migrate(LOOPBACK, target.port, moved, 0, 5000)
        for node in (target, source, *masters):
            node.ask("SETSLOT", slot, "NODE", target.node_id)


class TaggedCluster(Cluster):
    """The same with all keys in one slot; reached by a URL of one node and `cluster: True`."""

    prefix = "{redbeat}:"

    @property
    def address(self) -> dict[str, Any]:
        """A `redis://` URL of a node that is a replica at first."""
        return {
            "redbeat_redis_url": f"redis://{LOOPBACK}:{self._nodes[-1].port}/0",
            "redbeat_redis_options": {"cluster": True},
        }


class ClusterNode(RedisServer):
    """One node of a cluster."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            directory,
            cluster_enabled="yes",
            cluster_node_timeout=CLUSTER_PATIENCE,
            **KEEPING_ALL,
        )

    def _pick_port(self) -> int:
        return free_cluster_port()

    @property
    def node_id(self) -> str:
        """By what the other nodes call this one."""
        return str(self.ask("MYID"))

    def ask(self, subcommand: str, *arguments: Any) -> Any:
        """What the node replies to `CLUSTER <subcommand>`."""
        with self.client() as client:
            reply: Any = client.execute_command("CLUSTER", subcommand, *arguments)
        return reply

    def knows_all(self) -> bool:
        """Whether this node knows all of the cluster, itself included."""
        return len(self._table()) == 2 * MASTERS

    def is_master(self) -> bool:
        """Whether this node takes writes."""
        return "master" in self._line()[2]

    def is_served(self) -> bool:
        """Whether this node sees all slots served, and, as a replica, is linked to its master."""
        with self.client() as client:
            is_linked = client.info("replication").get("master_link_status", "up") == "up"
        return is_linked and "cluster_state:ok" in str(self._plainly("INFO"))

    def holds(self, slot: int) -> bool:
        """Whether this node says that it is the master of a slot."""
        parts = self._line()
        if "master" not in parts[2]:
            return False
        spans = [part.split("-") for part in parts[8:] if not part.startswith("[")]
        return any(int(span[0]) <= slot <= int(span[-1]) for span in spans)

    def _line(self) -> list[str]:
        return next(parts for parts in self._table() if "myself" in parts[2])

    def _table(self) -> list[list[str]]:
        return [line.split() for line in self._plainly("NODES").splitlines()]

    def _plainly(self, subcommand: str) -> str:
        """The reply as the text that it is on the wire; redis-py's parsing differs by version."""
        with contextlib.closing(self.client()) as client:
            client.response_callbacks.clear()
            return str(client.execute_command("CLUSTER", subcommand))  # type: ignore[no-untyped-call]


TOPOLOGIES: dict[str, type[Topology]] = {
    "single": Single,
    "unix": UnixSocket,
    "tls": Tls,
    "sentinel": Sentinel,
    "guarded-sentinel": GuardedSentinel,
    "tls-sentinel": TlsSentinel,
    "cluster": Cluster,
    "tagged-cluster": TaggedCluster,
}

StartTopology = Callable[[str], Topology]


@contextlib.contextmanager
def running_topologies(directory: Path) -> Iterator[StartTopology]:
    """Start topologies by their names; all are ended at the end of the `with` block.

    Raises:
        TlsNotFoundError: By the function, for a topology that the program cannot serve.
    """
    numbers = count()
    with contextlib.ExitStack() as stack:

        def start(name: str) -> Topology:
            if TOPOLOGIES[name].needs_tls and not knows_tls(find_server()):
                raise TlsNotFoundError
            topology = TOPOLOGIES[name](directory / f"{name}-{next(numbers)}")
            stack.callback(topology.stop)
            return topology.start()

        yield start
