"""WSGI: a middleware that takes each request through the gate, and holds its principal until the last byte is sent.

A WSGI server calls the app, iterates over what it returned, and closes it: three moments, not always on one thread, and between them the
thread serves nobody or somebody else. So all three run in a context of the request's own (:mod:`contextvars`), which leaves nothing behind in
the thread. The server is told the status only when the first piece of the body is there: until then an answer can still be withheld.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

from axis_security.core.errors import AxisError, ConfigError
from axis_security.core.flow import drive
from axis_security.wiring.facts import WANTED_HEADERS, RequestFacts
from axis_security.wiring.gate import Call, Gate, ReadForm
from axis_security.wiring.identity import Identify, Recheck
from axis_security.wiring.marks import mark_of
from axis_security.wiring.refusals import Answer
from axis_security.wiring.visit import Visit, maybe_visit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["REFUSED", "AxisWsgi", "Replayed", "environ_headers", "is_answer", "joined_headers", "perform_sync", "status_line", "wsgi_facts"]

REFUSED: Final = "axis.refused"
"""Key of the environ under which a framework leaves the :class:`AxisError` that its view raised; the middleware answers it."""

_VISIT: Final = "axis.visit"
_Header = tuple[str, str]
_NAMES: Final = {"CONTENT_TYPE": "content-type"} | {
    f"HTTP_{name.upper().replace('-', '_')}": name for name in WANTED_HEADERS - {"content-type"}
}


class AxisWsgi:
    """Puts *app* behind *gate*.

    Args:
        app: any WSGI application. One that carries a mark (``@requires`` or ``@public`` on the callable) is one endpoint; for others the framework's
            adapter tells the gate which endpoint was reached, and an answer to which no guard was asked is withheld.
        gate: with a sync identity store.
        endpoint: the app is one endpoint of another that is behind the same gate, and is refused if it carries no mark.

    Raises:
        ConfigError: the gate's identity store is async.
    """

    def __init__(self, app: WSGIApplication, gate: Gate, *, endpoint: bool = False) -> None:
        if gate.is_async:
            raise ConfigError(
                what="this gate is for async servers", why="its identity store is awaited", fix="use VaultIdentity or TwoStores for WSGI"
            )
        self.app: Final = app
        self.gate: Final = gate
        self._mark: Final = mark_of(app)
        self._endpoint: Final = endpoint or self._mark is not None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        facts = wsgi_facts(environ)
        outer = environ.get(_VISIT)
        if isinstance(outer, Visit) and outer is maybe_visit():
            # Mounted in an app that is behind the gate already: who asks is known, and the outer one sends the answer.
            if self._endpoint:
                self.gate.reached(outer, self._mark, facts.path)
            return self.app(environ, start_response)
        verdict = drive(self.gate.enter(facts), perform_sync(self.gate, lambda limit: _prefix(environ, limit)))
        if isinstance(verdict, Answer):
            return _send(verdict, start_response)
        environ[_VISIT] = verdict
        handling = _Handling(self.gate, verdict, environ, start_response)
        if self._endpoint:
            try:
                self.gate.reached(verdict, self._mark, facts.path)
            except AxisError as error:
                return _send(self.gate.refuse(error, verdict), start_response)
        return handling.begin(self.app)


class _Handling:
    """One request between the app and the server: what the server iterates over."""

    def __init__(self, gate: Gate, visit: Visit, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._gate: Final = gate
        self._visit: Final = visit
        self._environ: Final = environ
        self._server: Final = start_response
        with visit.acting():
            self._context: Final[Context] = copy_context()
        self._iterable: Iterable[bytes] = ()
        self._iterator: Iterator[bytes] | None = None
        self._head: tuple[str, list[_Header], Any] | None = None
        self._write: Callable[[bytes], object] | None = None

    def begin(self, app: WSGIApplication) -> Iterable[bytes]:
        """Call the app."""
        try:
            self._iterable = self._context.run(app, self._environ, self._start)
        except _Withheld as withheld:
            return _send(withheld.answer, self._server)
        except AxisError as error:
            if self._write is not None or not is_answer(error):
                raise
            return _send(self._gate.refuse(error, self._visit), self._server)
        refused = self._environ.pop(REFUSED, None)
        if isinstance(refused, AxisError):
            self._close_app()
            return _send(self._gate.refuse(refused, self._visit), self._server)
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = self._context.run(iter, self._iterable)
            piece: bytes = self._context.run(next, self._iterator)
        except StopIteration:
            if self._write is None:
                instead = self._answer()
                if instead is not None:
                    return self._replace(instead)
            raise
        except AxisError as error:
            if self._write is not None or not is_answer(error):
                raise  # once the status is out, all that is left is to break the answer off
            return self._replace(self._gate.refuse(error, self._visit))
        if self._write is None and piece:  # nothing is promised before the first byte
            instead = self._answer()
            if instead is not None:
                return self._replace(instead)
        return piece

    def close(self) -> None:
        """Close what the app returned, still as the request's principal."""
        self._close_app()

    def _start(self, status: str, headers: list[_Header], exc_info: Any = None, /) -> Callable[[bytes], object]:
        if exc_info is not None and self._write is not None:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: no cycle through the traceback
        self._head = (status, list(headers), exc_info)
        return self._written

    def _written(self, data: bytes) -> None:
        # PEP 3333's older way of sending, for apps that still use it.
        if self._write is None:
            instead = self._answer()
            if instead is not None:
                raise _Withheld(instead)
        if self._write is not None:
            self._write(data)

    def _answer(self) -> Answer | None:
        """Tell the server status and headers; or return what to answer instead, having told it those."""
        if self._head is None:
            raise ConfigError(what="the app did not call start_response", why="PEP 3333 asks for it before the body", fix="mend the app")
        status, headers, exc_info = self._head
        instead = self._gate.leave(self._visit, status=int(status[:3]))
        if instead is not None:
            return instead
        self._write = self._server(status, joined_headers(headers, self._visit.answer_headers()), *([exc_info] if exc_info else []))
        return None

    def _replace(self, answer: Answer) -> bytes:
        self._close_app()
        self._write = self._server(status_line(answer.status), list(answer.headers))
        self._iterator = iter(())
        return answer.body

    def _close_app(self) -> None:
        iterable, self._iterable = self._iterable, ()
        close = getattr(iterable, "close", None)
        if close is not None:
            self._context.run(close)


class _Withheld(BaseException):
    """Ends an app that tried to write the first bytes of an answer which is withheld; no `except Exception` of its own may keep it going."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def is_answer(error: AxisError) -> bool:
    """Whether the error speaks to whoever asked; one that does not is the app's own failure, and its error handling's."""
    return error.http_status < 500 or error.http_status == 503


def wsgi_facts(environ: WSGIEnvironment) -> RequestFacts:
    """The request's facts, from PEP 3333's environ."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return RequestFacts(
        method=environ["REQUEST_METHOD"],
        path=path.encode("latin-1", "replace").decode("utf-8", "replace"),
        query=environ.get("QUERY_STRING", ""),
        secure=environ.get("wsgi.url_scheme") == "https",
        peer=environ.get("REMOTE_ADDR", ""),
        headers=environ_headers(environ),
    )


def environ_headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """The headers that the gate reads, out of CGI's names; one that is sent empty is sent.

    A server that lets ``X_Forwarded_For`` pass as ``X-Forwarded-For`` is to be mended.
    """
    return {name: environ[key] for key, name in _NAMES.items() if key in environ}


def perform_sync(gate: Gate, read: Callable[[int], bytes]) -> Callable[[Any], Any]:
    """What carries out the gate's requests where blocking is allowed; *read* gives the first bytes of the body and leaves them to be read again."""

    def perform(request: Any) -> Any:
        match request:
            case Identify() | Recheck():
                return gate.identity.perform(request)
            case ReadForm(limit):
                return read(limit)
            case Call(sync=work):
                return work()
            case _:
                raise ConfigError(
                    what=f"the gate asked for a `{type(request).__name__}`",
                    why="this adapter does not know it",
                    fix="use one release of both",
                )

    return perform


def joined_headers(app: Iterable[_Header], ours: Iterable[_Header]) -> list[_Header]:
    """The app's headers and ours: ours win where a name may stand once; cookies and ``Vary`` add up."""
    own = list(ours)
    once = {name for name, _ in own} - {"set-cookie", "vary"}
    return [*(pair for pair in app if pair[0].lower() not in once), *own]


def status_line(status: int) -> str:
    """As PEP 3333 wants it: the code, a space, and the phrase."""
    from http import HTTPStatus

    return f"{status} {HTTPStatus(status).phrase}"


class Replayed:
    """An input stream whose first bytes were read already, and are given out again."""

    def __init__(self, prefix: bytes, rest: Any) -> None:
        self._prefix = prefix
        self._rest: Final = rest

    def read(self, size: int | None = -1) -> bytes:
        """At most *size* bytes; all that is left without one."""
        if size is None or size < 0:
            prefix, self._prefix = self._prefix, b""
            return prefix + bytes(self._rest.read())
        piece, self._prefix = self._prefix[:size], self._prefix[size:]
        # One that asks for n bytes of a body that has them takes fewer for its end.
        return piece if len(piece) == size else piece + bytes(self._rest.read(size - len(piece)))

    def readline(self, size: int | None = -1) -> bytes:
        """A line, or its first *size* bytes."""
        limit = None if size is None or size < 0 else size
        line, self._prefix = _cut_line(self._prefix, limit)
        if line.endswith(b"\n") or (limit is not None and len(line) == limit):
            return line
        return line + bytes(self._rest.readline() if limit is None else self._rest.readline(limit - len(line)))

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """All lines that are left."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def seekable(self) -> bool:
        """No, whatever stands below: what was read before cannot be read again. Django asks, from 6.1."""
        return False

    def close(self) -> None:
        """Close the stream below, if it can be."""
        close = getattr(self._rest, "close", None)
        if close is not None:
            close()


def _cut_line(data: bytes, limit: int | None) -> tuple[bytes, bytes]:
    ends = data.find(b"\n") + 1 or len(data)
    at = ends if limit is None else min(ends, limit)
    return data[:at], data[at:]


def _prefix(environ: WSGIEnvironment, limit: int) -> bytes:
    """The first bytes of the body; the app finds them in its stream again."""
    stream: Any = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH", "")
    # Nineteen digits hold every length there is; `isdigit` alone would let `²` through, which is no number to `int`.
    known = length.isascii() and length.isdigit() and len(length) < 20
    wanted = min(limit, int(length)) if known else limit if environ.get("wsgi.input_terminated") else 0
    found = b""
    while len(found) < wanted and (piece := stream.read(wanted - len(found))):
        found += piece
    environ["wsgi.input"] = Replayed(found, stream)
    return found


def _send(answer: Answer, start_response: StartResponse) -> list[bytes]:
    start_response(status_line(answer.status), list(answer.headers))
    return [answer.body]
