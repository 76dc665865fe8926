"""The check of the Redis server that a scheduler makes when it is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger

from ..checks import check_key_expiry, check_version
from ..store.access import REDIS_ERRORS
from ..store.clients import check_options
from ..store.storage import Storage
from ..store.urls import sanitized
from .settings import Settings

logger = get_logger("celery.beat")


class ServerCheck:
    """Whether the server is recent enough, and may not evict the schedule.

    ``is_reached`` says whether the server answered, so that what was found stands; ``None``: it was
    not asked.
    """

    def __init__(
        self,
        get_conf: Callable[[], Settings],
        get_client: Callable[[], Any],
        get_storage: Callable[[], Storage],
    ) -> None:
        self._get_conf = get_conf
        self._get_client = get_client
        self._get_storage = get_storage
        self.is_reached: bool | None = None
        self.findings: list[str] = []

    def check(self) -> None:
        """Ask the server, log what was found, and keep it in ``findings``; two round trips."""
        try:
            client = self._get_client()
        except REDIS_ERRORS as exc:
            # Of a cluster: other clients connect with their first command.
            if self._get_conf().key_expiry_check == "raise":
                raise
            logger.error(
                "beat: Redis at %s is unavailable: %s", sanitized(self._get_conf().redis_url), exc
            )
            self.is_reached, self.findings = False, []
            return
        check_options(client)
        with self._get_storage().access.turn():
            is_reached = check_version(client)
            findings = check_key_expiry(client, self._get_conf().key_expiry_check)
        # Only now: a check that raises is made again.
        self.is_reached, self.findings = is_reached, findings
