"""Django: a middleware, sync and async, that takes each request through the gate. Put it first in ``MIDDLEWARE``; the gate is ``AXIS_SECURITY["GATE"]``.

Leave Django's ``CsrfViewMiddleware`` out: forged requests are refused by the gate, for every unsafe method and every view, with a token that belongs to
the session; ``csrf_exempt`` has no meaning to it. In templates write ``{{ axis_csrf_field }}`` first in each form (:func:`context`).
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Context, copy_context
from functools import partial
from http.cookies import SimpleCookie
from typing import Any, Final

from axis_security.adapters.django.routes import audit, mark_for
from axis_security.adapters.django.settings import gate, opened
from axis_security.adapters.teardown import nobody_tears_down
from axis_security.adapters.wsgi import Replayed, environ_headers, is_answer, perform_sync
from axis_security.core.errors import AxisError, ConfigError, MissingExtra
from axis_security.core.flow import adrive, drive
from axis_security.core.settings import Environment
from axis_security.wiring.facts import RequestFacts
from axis_security.wiring.gate import Call, Gate
from axis_security.wiring.identity import Identify
from axis_security.wiring.refusals import Answer
from axis_security.wiring.visit import Visit, current_visit, maybe_visit

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
    from django.http import HttpResponse
    from django.utils.cache import patch_vary_headers
    from django.utils.html import format_html
except ModuleNotFoundError:
    raise MissingExtra(package="django", extra="django") from None

__all__ = ["AxisMiddleware", "context"]


class AxisMiddleware:
    """Django's requests through the gate.

    In development Django does not start while a route of the URLconf is unmarked; in production such a route answers 403.

    Raises:
        ConfigError: ``AXIS_SECURITY`` names no gate, or a path in ``AXIS_SECURITY["OPENED"]`` leads nowhere.
        UnmarkedRoutes: in development, naming each.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response: Final = get_response
        self.gate: Final[Gate] = gate()
        self._opened: Final = opened()
        self._async: Final = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)
        elif self.gate.is_async:
            raise ConfigError(
                what="this gate is for async servers", why="its identity store is awaited", fix="use VaultIdentity or TwoStores under WSGI"
            )
        found = audit()
        if self.gate.environment is Environment.DEVELOPMENT:
            found.require_marked()

    def __call__(self, request: Any) -> Any:
        """Answer one request."""
        if self._async:
            return self._answer_async(request)
        verdict = drive(self.gate.enter(_facts(request)), perform_sync(self.gate, partial(_prefix, request)))
        if isinstance(verdict, Answer):
            return _Exact(verdict)
        with verdict.acting():
            own = copy_context()
        response = own.run(self.get_response, request)
        try:
            stream = _Stream(response, verdict, own)
            if not verdict.decided:
                stream.prime()
        except AxisError as error:
            return self._instead(response, self.gate.refuse(error, verdict), own)
        return self._leave(request, response, verdict, own)

    async def _answer_async(self, request: Any) -> Any:
        nobody_tears_down()
        verdict = await adrive(self.gate.enter(_facts(request)), self._perform(request))
        if isinstance(verdict, Answer):
            return _Exact(verdict)
        with verdict.acting():
            own = copy_context()
            response = await self.get_response(request)
        try:
            stream = _Stream(response, verdict, own)
            if not verdict.decided:
                await stream.aprime()
        except AxisError as error:
            return self._instead(response, self.gate.refuse(error, verdict), own)
        return self._leave(request, response, verdict, own)

    def process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> Any:
        """The view is known, and nothing of it has run: the first of all middlewares' ``process_view``, where this one stands first."""
        visit = maybe_visit()
        if visit is None:
            raise ConfigError(
                what="a request went past the gate",
                why="the middleware's own part did not see it",
                fix="put AxisMiddleware first in MIDDLEWARE",
            )
        path = "/" + request.resolver_match.route
        try:
            self.gate.reached(visit, mark_for(view, path, request.method, self._opened), f"{request.method} {path}")
        except AxisError as error:
            return self.process_exception(request, error)
        return None

    def process_exception(self, request: Any, error: BaseException) -> Any:
        """A refusal is answered by the gate; every other exception is Django's."""
        if not isinstance(error, AxisError) or not is_answer(error):
            return None
        request.axis_refused = error
        return HttpResponse(status=error.http_status)

    def _leave(self, request: Any, response: Any, visit: Visit, own: Context) -> Any:
        refused = request.__dict__.pop("axis_refused", None)
        instead = self.gate.leave(visit, status=response.status_code) if refused is None else self.gate.refuse(refused, visit)
        if instead is not None:
            return self._instead(response, instead, own)
        _add_headers(response, visit.answer_headers())
        return response

    def _instead(self, response: Any, answer: Answer, own: Context) -> Any:
        # Not response.close(): that tells Django that the request is over, and the other answer will.
        for closer in response._resource_closers:  # noqa: SLF001  # what close() would call
            own.run(closer)
        return _Exact(answer)

    def _perform(self, request: Any) -> Callable[[Any], Any]:
        identity, sync = self.gate.identity, perform_sync(self.gate, partial(_prefix, request))

        async def perform(wanted: Any) -> Any:
            match wanted:
                case Call(asynchronous=work):
                    return await work()
                case Identify() if self.gate.is_async:
                    answer = identity.perform(wanted)
                    return await answer if inspect.isawaitable(answer) else answer
                case _:
                    # Reading a form is quick (Django has the body on disk or in memory), a store is not; both are off the loop.
                    return await sync_to_async(sync, thread_sensitive=False)(wanted)

        return perform


class _Stream:
    """The content of a streaming response, each piece made as the request's principal; nothing at all for other responses."""

    def __init__(self, response: Any, visit: Visit, own: Context) -> None:
        self._first: list[Any] = []
        self._inner: Any = None
        self._own: Final = own
        self._visit: Final = visit
        self._begun = False
        # A file that is there to be sent needs nobody.
        if not response.streaming or getattr(response, "file_to_stream", None) is not None:
            return
        closers = response._resource_closers  # noqa: SLF001  # close() of the host's generator is in there, and runs later
        closers[:] = [partial(own.run, closer) for closer in closers]
        # The host's own iterator: what the property gives is wrapped, and a wrapper that is dropped leaves it to the garbage collector.
        self._inner = response._iterator  # noqa: SLF001  # what Django serves, made public by no name
        response.streaming_content = self._pieces_async() if response.is_async else self._pieces()

    def prime(self) -> None:
        """Have the first piece made, so that a guard inside is asked before the status is sent."""
        if self._inner is None:
            return
        if hasattr(self._inner, "__anext__"):
            from asgiref.sync import async_to_sync

            # Under WSGI Django reads such a stream to its end on a loop of its own, and a loop that ends closes what it began.
            self._first += async_to_sync(self._all)()
        else:
            self._first += [piece for piece in [self._own.run(next, self._inner, None)] if piece is not None]

    async def aprime(self) -> None:
        """:meth:`prime` on an event loop."""
        if self._inner is None:
            return
        if not hasattr(self._inner, "__anext__"):
            await sync_to_async(self.prime)()
            return
        with self._visit.acting():
            self._first += [piece for piece in [await self._following()] if piece is not None]

    async def _following(self) -> Any:
        if self._begun:
            return await anext(self._inner, None)
        # Whoever collects the garbage of a stream that was broken off may be another request; its teardown is to run as this one. A generator
        # takes its finalizer from the thread at its first step.
        self._begun = True
        loop, own, before = asyncio.get_running_loop(), self._own, sys.get_asyncgen_hooks()

        def finalize(generator: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(lambda: loop.create_task(generator.aclose(), context=own))

        sys.set_asyncgen_hooks(finalizer=finalize)
        try:
            step = anext(self._inner, None)
        finally:
            sys.set_asyncgen_hooks(*before)
        return await step

    async def _all(self) -> list[Any]:
        with self._visit.acting():
            return [piece async for piece in self._inner]

    def _pieces(self) -> Iterator[Any]:
        yield from self._first
        while (piece := self._own.run(next, self._inner, None)) is not None:
            yield piece

    async def _pieces_async(self) -> AsyncIterator[Any]:
        for piece in self._first:
            yield piece
        try:
            while True:
                with self._visit.acting():
                    following = await self._following()
                if following is None:
                    return
                yield following
        finally:
            close = getattr(self._inner, "aclose", None)
            if close is not None:
                with self._visit.acting():
                    await close()


class _Exact(HttpResponse):  # type: ignore[misc]  # Django ships no types
    """An answer of the gate, with its headers as they are, in their order."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body, status=answer.status, headers=dict(answer.headers))
        self._answer = answer

    def items(self) -> Any:
        """What the server sends."""
        return list(self._answer.headers)


def context(request: Any) -> dict[str, Any]:
    """A template context processor: ``axis_csrf_field`` (the hidden field), ``axis_csrf_token`` and ``axis_nonce``."""

    def field() -> Any:
        return format_html('<input type="hidden" name="csrf_token" value="{}">', current_visit().csrf_token())

    return {
        "axis_csrf_field": field,
        "axis_csrf_token": lambda: current_visit().csrf_token(),
        "axis_nonce": lambda: current_visit().nonce,
    }


def _facts(request: Any) -> RequestFacts:
    meta = request.META
    return RequestFacts(
        method=request.method,
        path=request.path,
        query=meta.get("QUERY_STRING", ""),
        secure=request.is_secure(),
        peer=meta.get("REMOTE_ADDR", ""),
        headers=environ_headers(meta),
    )


def _prefix(request: Any, limit: int) -> bytes:
    """The first bytes of the body; Django finds them in its stream again."""
    stream = request._stream  # noqa: SLF001  # Django has no public way to look at a body and leave it
    found = b""
    while len(found) < limit and (piece := stream.read(limit - len(found))):
        found += piece
    if stream.seekable():
        stream.seek(0)
    else:
        request._stream = Replayed(found, stream)  # noqa: SLF001  # see above
    return found


def _add_headers(response: Any, ours: list[tuple[str, str]]) -> None:
    for name, value in ours:
        if name == "vary":
            patch_vary_headers(response, [value])
        elif name == "set-cookie":
            cookie: SimpleCookie = SimpleCookie()
            cookie.load(value)
            if len(cookie) != 1:
                raise ConfigError(
                    what="a cookie cannot be set", why="Django's cookie jar does not know one of its attributes", fix="leave it out"
                )
            response.cookies.update(cookie)
        else:
            response.headers[name] = value
