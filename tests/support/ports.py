"""Free ports on the loopback address."""

import random
import socket

LOOPBACK = "127.0.0.1"

# Below the range from which the kernel picks the ports of outgoing connections: a port of ours
# stays free while its server is down, and nobody connects to himself by accident.
PORTS = range(20000, 32000)

# How far above its port a node of a cluster listens to the other nodes.
BUS_OFFSET = 10000


def is_free(port: int) -> bool:
    """Whether a server can listen on this port now."""
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port on which nobody listens."""
    return next(port for port in random.sample(PORTS, len(PORTS)) if is_free(port))


def free_cluster_port() -> int:
    """A port on which nobody listens, nor on the one of the cluster's bus, which lies above it."""
    ports = [port for port in PORTS if port + BUS_OFFSET in PORTS]
    return next(
        port
        for port in random.sample(ports, len(ports))
        if is_free(port) and is_free(port + BUS_OFFSET)
    )
