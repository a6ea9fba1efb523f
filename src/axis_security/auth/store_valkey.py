"""Sessions and throttles in Valkey: one server, or a cluster. Extra ``valkey``.

What is kept when a primary fails
---------------------------------
Replication is asynchronous: a primary can die with writes that no replica has, and the replica that takes over then serves an older state.
So an operation that ends a session, or rotates one, counts as done only when *all* replicas (``replicas=``) have confirmed it
(``WAIT``); otherwise it raises :class:`~axis_security.core.errors.Unavailable`. From that follows, exactly:

* A session whose sign-out, revocation or rotation *returned* is on no node that can take over. It does not come back. The same holds for what a
  login ended: the id that the browser presented, and sessions above the cap.
* One that *raised* may have happened on the primary only. Repeat it until it returns; until then the session may be live after a failover.
* A session that was just started may be lost in a failover: its person signs in again. So logins go on while a replica is away, and sign-outs,
  revocations and rotations raise until it is back (or the store is told a smaller ``replicas``).
* A primary that is cut off from the others goes on answering its clients until it notices. With ``min-replicas-to-write 1`` and
  ``min-replicas-max-lag 1`` it refuses every script of ours within about two seconds (they all declare that they write), so a session
  revoked on the other side can be used there for that long at most. Without that setting: until ``cluster-node-timeout`` has passed.
* The note of the last use and the counts of throttles are not waited for: after a failover a session may look unused for a little longer
  than it was, and a budget may grant again what was taken in the last moments. The count of wrong passwords per account is in PostgreSQL.
* ``replicas=0`` is for a server without replicas: when it loses its memory, everybody signs in again. Don't let such a server start from an
  old snapshot (``save ""``, ``appendonly no``): a snapshot brings back what was revoked after it was taken.

Sentinel: name the primary's address; a new primary needs a new store.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

from axis_security.auth.ports import Op
from axis_security.auth.valkey_calls import Call, steps_of
from axis_security.core.errors import ConfigError, MissingExtra, Unavailable
from axis_security.core.flow import adrive, drive
from axis_security.core.secret import Secret

__all__ = ["AsyncValkeyStore", "ValkeyStore"]

R = TypeVar("R")
_TRIES: Final = 6
_SLOTS: Final = 16_384
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Send:
    """Commands for one node, on one connection, in one go."""

    node: Address
    commands: tuple[tuple[Any, ...], ...]


Sending = Generator[_Send, list[Any], R]


class _Map:
    """Which node has which slot. Asked for at first use and again after any failure; redirections correct it in between."""

    def __init__(self, urls: tuple[str | Secret[str], ...], *, replicas: int, timeout_seconds: float, options: dict[str, Any]) -> None:
        texts = [url.reveal() if isinstance(url, Secret) else url for url in urls]
        parts = [urlsplit(text) for text in texts]
        if not parts or any(part.scheme not in {"valkey", "valkeys"} or not part.hostname for part in parts):
            raise ConfigError(
                what="unusable Valkey address",
                why="expected valkey:// or valkeys:// (TLS) with a host, at least one",
                fix="ValkeyStore('valkeys://cache-1:6379', replicas=1)",
            )
        if replicas < 0 or not 0.05 <= timeout_seconds <= 30:
            raise ConfigError(
                what="unusable Valkey settings", why=f"replicas={replicas}, timeout_seconds={timeout_seconds}", fix="0 or more; 0.05..30"
            )
        self.replicas: Final = replicas
        self.wait_ms: Final = max(1, int(timeout_seconds * 500))  # before the socket gives up
        self.options: Final = {
            **options,
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
            "decode_responses": False,
        }
        self._template: Final = parts[0]
        self._known: list[Address] = [(part.hostname or "", part.port or 6379) for part in parts]
        self._owners: list[Address | None] = [None] * _SLOTS
        self.stale = True

    def url(self, node: Address) -> str:
        """The first address's scheme, credentials and database, at *node*."""
        credentials = self._template.netloc.rpartition("@")[0]
        host = f"[{node[0]}]" if ":" in node[0] else node[0]
        place = f"{credentials}@{host}:{node[1]}" if credentials else f"{host}:{node[1]}"
        return urlunsplit((self._template.scheme, place, self._template.path, self._template.query, ""))

    @property
    def known(self) -> tuple[Address, ...]:
        """The nodes, the one that failed last at the end."""
        return tuple(self._known)

    def node_of(self, slot: int) -> Address:
        """The primary of *slot*; of a single server, the server."""
        return self._owners[slot] or self._known[0]

    def learn(self, slot: int, node: Address) -> None:
        """Take a redirection's word."""
        self._owners[slot] = node
        if node not in self._known:
            self._known = [*self._known, node]

    def learn_all(self, asked: Address, answer: Any) -> None:
        """Take the answer of CLUSTER SLOTS; an error means a server that is no cluster."""
        owners: list[Address | None] = [None] * _SLOTS
        found: list[Address] = []
        for first, last, *places in answer if isinstance(answer, list) else ():
            # A node that does not know its own name leaves it out: it is the one that was asked.
            nodes = [((place[0] or b"").decode("ascii") or asked[0], int(place[1])) for place in places]
            owners[first : last + 1] = [nodes[0]] * (last + 1 - first)
            found += nodes
        # Replaced, not changed: other threads may be reading.
        self._known = [asked, *dict.fromkeys(node for node in (*found, *self._known) if node != asked)]
        self._owners, self.stale = owners, False

    def forget(self, node: Address) -> None:
        """It did not do as it should: ask it last, and ask again who is who."""
        self._known = [*(n for n in self._known if n != node), node]
        self.stale = True


def _discover(nodes: _Map) -> Sending[None]:
    for node in nodes.known:
        try:
            (answer,) = yield _Send(node, (("CLUSTER", "SLOTS"),))
        except Unavailable:
            nodes.forget(node)
            continue
        nodes.learn_all(node, answer)
        return
    raise Unavailable(what="Valkey did not answer", why="none of its nodes could be reached", fix="check the servers and the network")


def _sending(nodes: _Map, call: Call) -> Sending[Any]:
    """One call: find the node, follow redirections, insist on the replicas."""
    from valkey.crc import key_slot  # optional extra; checked by the constructor

    if nodes.stale:
        yield from _discover(nodes)
    slot = key_slot(call.keys[0].encode("ascii"))
    node, asking, whole = nodes.node_of(slot), False, False
    for _ in range(_TRIES):
        run = ("EVAL", call.script.text) if whole else ("EVALSHA", call.script.sha)
        commands: list[tuple[Any, ...]] = [("ASKING",)] if asking else []
        commands.append((*run, len(call.keys), *call.keys, *call.args))
        durable = call.durable and nodes.replicas > 0
        if durable:
            commands.append(("WAIT", nodes.replicas, nodes.wait_ms))
        try:
            answers = yield _Send(node, tuple(commands))
        except Unavailable:
            nodes.forget(node)
            raise
        answer = answers[1 if asking else 0]
        if not isinstance(answer, Exception):
            if durable:
                _insist(answers[-1], nodes.replicas)
            return answer
        word, _, rest = str(answer).partition(" ")
        asking = word == "ASK"
        if word in {"MOVED", "ASK"}:
            place = rest.split(" ")[1]
            host, _, port = place.rpartition(":")
            node = (host or node[0], int(port))
            if word == "MOVED":
                nodes.learn(slot, node)
        elif _is_no_script(answer):
            whole = True
        else:
            nodes.forget(node)
            raise _refused(answer)
    raise Unavailable(
        what="Valkey did not settle where a key lives", why="too many redirections", fix="try again; the cluster is being rearranged"
    )


def _is_no_script(error: Exception) -> bool:
    return type(error).__name__ == "NoScriptError" or str(error).startswith("NOSCRIPT")


def _insist(confirmed: Any, replicas: int) -> None:
    if not isinstance(confirmed, int) or confirmed < replicas:
        raise Unavailable(
            what="not every replica confirmed the change",
            why=f"{confirmed if isinstance(confirmed, int) else 'no'} of {replicas} in time; a failover now could undo it",
            fix="repeat the operation; check the replicas",
        )


def _refused(error: Exception) -> Unavailable:
    # The first word is the server's error code; what follows may quote arguments.
    word = str(error).split(" ", 1)[0]
    code = word if word.isalpha() and word.isupper() else type(error).__name__
    return Unavailable(what="Valkey did not carry out an operation", why=f"it answered {code}", fix="check the server and its rights")


def _no_answer(error: Exception) -> Unavailable:
    return Unavailable(
        what="Valkey did not answer", why=type(error).__name__, fix="check the server and the network; the next operation tries again"
    )


def _require() -> None:
    try:
        import valkey  # noqa: F401  # optional extra
    except ImportError:
        raise MissingExtra(package="valkey", extra="valkey") from None


class ValkeyStore:
    """Carries out operations on sessions and throttles. Thread-safe; connections are made when they are needed, and again after a restart.

    It holds no accounts: pair it with a vault in :class:`~axis_security.auth.store_split.SplitStore`, which sees to it that a password change
    or a disabled account reaches the sessions here.

    Args:
        urls: ``valkey://`` or ``valkeys://`` (TLS) addresses; of a cluster, some of its nodes. Credentials of the first are used for all.
        replicas: how many replicas each primary has; see the module's text for what depends on it.
        timeout_seconds: how long an answer may take.
        options: for the client's connections, such as ``ssl_ca_certs``.

    Raises:
        MissingExtra: the extra ``valkey`` is not installed.
        ConfigError: an unusable address or setting.
    """

    def __init__(self, *urls: str | Secret[str], replicas: int, timeout_seconds: float = 2.0, **options: Any) -> None:
        _require()
        self._nodes: Final = _Map(urls, replicas=replicas, timeout_seconds=timeout_seconds, options=options)
        self._clients: dict[Address, Any] = {}

    def perform(self, op: Op[R]) -> R:
        """Carry out *op*.

        Raises:
            Unavailable: Valkey did not answer, refused, or not every replica confirmed.
            ConfigError: not an operation on sessions or throttles.
        """
        result: R = drive(steps_of(op), lambda call: drive(_sending(self._nodes, call), self._send))
        return result

    def close(self) -> None:
        """Close the connections; they are made again if the store is used again."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def _send(self, asked: _Send) -> list[Any]:
        from valkey import Valkey
        from valkey.exceptions import ValkeyError

        client = self._clients.get(asked.node)
        if client is None:
            client = self._clients.setdefault(asked.node, Valkey.from_url(self._nodes.url(asked.node), **self._nodes.options))
        try:
            with client.pipeline(transaction=False) as pipeline:
                for command in asked.commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = pipeline.execute(raise_on_error=False)
        except (ValkeyError, OSError) as error:
            raise _no_answer(error) from None
        return answers


class AsyncValkeyStore:
    """:class:`ValkeyStore` for asyncio. Use one in each event loop."""

    def __init__(self, *urls: str | Secret[str], replicas: int, timeout_seconds: float = 2.0, **options: Any) -> None:
        _require()
        self._nodes: Final = _Map(urls, replicas=replicas, timeout_seconds=timeout_seconds, options=options)
        self._clients: dict[Address, Any] = {}

    async def perform(self, op: Op[R]) -> R:
        """See :meth:`ValkeyStore.perform`."""
        result: R = await adrive(steps_of(op), lambda call: adrive(_sending(self._nodes, call), self._send))
        return result

    async def close(self) -> None:
        """Close the connections; they are made again if the store is used again."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _send(self, asked: _Send) -> list[Any]:
        from valkey.asyncio import Valkey
        from valkey.exceptions import ValkeyError

        client = self._clients.get(asked.node)
        if client is None:
            client = self._clients.setdefault(asked.node, Valkey.from_url(self._nodes.url(asked.node), **self._nodes.options))
        try:
            async with client.pipeline(transaction=False) as pipeline:
                for command in asked.commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except (ValkeyError, OSError) as error:
            raise _no_answer(error) from None
        return answers
