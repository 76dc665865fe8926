"""What the figures were measured on."""

import json
import os
import platform
import subprocess

from benchmarks.house import House

PACKAGES = ("celery-redbeat", "celery", "kombu", "redis")
VERSIONS = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


def facts(house: House) -> str:
    """Lines to stand above the table."""
    server = house.schedule.info("server")
    return "\n".join(
        [
            f"redbeat: {_versions(house.ours)}",
            f"2.x:     {_versions(house.peer)}",
            f"Python {platform.python_version()}, Redis server {server['redis_version']}, "
            f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, "
            f"load at start {os.getloadavg()[0]:.1f}",
        ]
    )


def _versions(python: str) -> str:
    printed = subprocess.run(
        [python, "-c", VERSIONS, *PACKAGES], check=True, capture_output=True, text=True
    ).stdout
    return ", ".join(f"{name} {version}" for name, version in json.loads(printed).items())
