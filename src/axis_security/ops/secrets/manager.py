"""Secrets in use: fetched once, refreshed before they lapse, never older than a stated limit."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.secret import Secret
from axis_security.ops.secrets.provider import SecretMissing, SecretProvider, SecretRefused, SecretsUnavailable, SecretVersion, Stage

__all__ = ["RefreshPolicy", "SecretManager", "SecretPair"]

_REFRESH_AT: Final = 2 / 3
"""Refresh when this part of the ttl has passed: a third of it is left for retries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPolicy:
    """How long a fetched secret serves.

    Args:
        ttl: for providers that name none of their own; theirs wins where it is shorter.
        jitter: part of the refresh time that is random, so that a fleet does not ask all at once; 0 to 0.5.
        stale: how long beyond its ttl a secret may still serve while the provider does not answer. After that: no.
        retry: the shortest time between two failed attempts; above 0.

    Raises:
        ConfigError: a value is out of range.
    """

    ttl: timedelta = timedelta(minutes=5)
    jitter: float = 0.1
    stale: timedelta = timedelta(hours=1)
    retry: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        zero, day = timedelta(0), timedelta(days=1)
        if not (zero < self.ttl <= day and 0 <= self.jitter <= 0.5 and zero <= self.stale <= day and zero < self.retry <= day):
            raise ConfigError(
                what="the refresh policy is not usable",
                why="ttl and retry must lie in (0, 1 day], jitter in [0, 0.5], stale in [0, 1 day]",
                fix="choose a ttl of minutes and a stale limit of at most hours",
            )


@dataclass(frozen=True, slots=True)
class SecretPair:
    """The version in force and, while a rotation spreads, the one before it."""

    current: Secret[str]
    previous: Secret[str] | None


@dataclass(frozen=True, slots=True)
class _Entry:
    pair: SecretPair
    refresh_at: datetime
    lapses_at: datetime


class SecretManager:
    """Gives secrets by name; thread-safe, and usable from an event loop with :meth:`aget`.

    One caller refreshes a secret that is due while all others go on with the one they have (single flight). If the provider does
    not answer, the old one serves until ``policy.stale`` has passed, with a ``SECRET_STALE`` event per failed attempt; then
    :class:`SecretsUnavailable`. If it refuses, the old one serves to the end of its ttl and no longer; if it has the secret no more, not at all. A new version
    writes a ``SECRET_ROTATED`` event and calls *on_rotate*.

    Args:
        provider: where secrets come from.
        sink: takes the events.
        policy: how long a fetched secret serves.
        on_rotate: called with the name and the new pair after a version changed, in the thread that noticed.
        clock, uniform: time and randomness.
    """

    def __init__(
        self,
        provider: SecretProvider,
        *,
        sink: EventSink,
        policy: RefreshPolicy | None = None,
        on_rotate: Callable[[str, SecretPair], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._provider = provider
        self._sink = sink
        self._policy = policy or RefreshPolicy()
        self._on_rotate = on_rotate
        self._clock = clock
        self._uniform = uniform
        self._entries: dict[str, _Entry] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    @property
    def label(self) -> str:
        """The provider's label, for messages and checks."""
        return self._provider.label

    def get(self, name: str) -> Secret[str]:
        """The version in force.

        Raises:
            SecretMissing: the provider has none.
            SecretsUnavailable: it can't be fetched, and what we have is too old to serve.
        """
        return self.pair(name).current

    async def aget(self, name: str) -> Secret[str]:
        """:meth:`get` without blocking the event loop: the provider is asked in a thread, and only when a fetch is due."""
        entry = self._entries.get(name)
        if entry is not None and self._clock.now() < entry.refresh_at:
            return entry.pair.current
        return await asyncio.to_thread(self.get, name)

    def pair(self, name: str) -> SecretPair:
        """The version in force and the one before it. Raises as :meth:`get` does."""
        now = self._clock.now()
        entry = self._entries.get(name)
        if entry is not None and now < entry.refresh_at:
            return entry.pair
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        # With a value in hand only one caller goes to the provider; with none, everyone waits for the first.
        if entry is None or now >= entry.lapses_at:
            lock.acquire()
        elif not lock.acquire(blocking=False):
            return entry.pair
        try:
            entry = self._entries.get(name)
            if entry is None or self._clock.now() >= entry.refresh_at:
                entry = self._refresh(name, entry)
            return entry.pair
        finally:
            lock.release()

    def _refresh(self, name: str, old: _Entry | None) -> _Entry:
        now = self._clock.now()
        try:
            fetched = self._provider.fetch(name)
        except SecretMissing:
            self._entries.pop(name, None)
            raise
        except SecretsUnavailable as error:
            if old is None:
                raise
            stale_from = old.lapses_at - self._policy.stale
            until = stale_from if isinstance(error, SecretRefused) else old.lapses_at
            if now >= until:
                self._entries.pop(name, None)
                raise
            age = now - stale_from
            self._emit(EventKind.SECRET_STALE, Outcome.FAILED, name=name, age_seconds=max(0, int(age.total_seconds())))
            # Until then and no longer: a value serves unasked before its refresh_at.
            entry = _Entry(old.pair, min(now + self._policy.retry, until), old.lapses_at)
            self._entries[name] = entry
            return entry
        entry = self._entry(fetched, self._before(name, fetched, old), now)
        self._entries[name] = entry
        if old is not None and old.pair.current != fetched.value:
            self._emit(EventKind.SECRET_ROTATED, Outcome.ALLOWED, name=name, version=fetched.version)
            if self._on_rotate is not None:
                self._on_rotate(name, entry.pair)
        return entry

    def _before(self, name: str, fetched: SecretVersion, old: _Entry | None) -> Secret[str] | None:
        try:
            return self._provider.fetch(name, Stage.PREVIOUS).value
        except (SecretMissing, SecretRefused):
            return None
        except SecretsUnavailable:
            # The version in force has just come and must not wait for the one before it; what we had is the best that is known of that.
            if old is None:
                return None
            return old.pair.previous if old.pair.current == fetched.value else old.pair.current

    def _entry(self, fetched: SecretVersion, previous: Secret[str] | None, now: datetime) -> _Entry:
        ttl = min(self._policy.ttl, fetched.ttl) if fetched.ttl is not None else self._policy.ttl
        refresh_in = ttl * (_REFRESH_AT * (1 - self._policy.jitter * self._uniform()))
        return _Entry(SecretPair(fetched.value, previous), now + refresh_in, now + ttl + self._policy.stale)

    def _emit(self, kind: EventKind, outcome: Outcome, **detail: str | int) -> None:
        self._sink.emit(AuditEvent(kind=kind, at=self._clock.now(), outcome=outcome, detail=detail))
