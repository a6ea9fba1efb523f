"""The decorator on classes of views: every handler, in subclasses and from mixins, and the doors that a class writes itself."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from axis_security import Principal, acting_as
from axis_security.core.errors import ConfigError
from axis_security.rbac import Capabilities, PermissionDenied, allow, owns, requires, standard_policy

CAPS = Capabilities(notes=("read", "write"), users=("manage",))
POLICY = standard_policy(CAPS, viewer=[CAPS.notes.read], member=[allow(CAPS.notes.write, when=owns("owner_id"))], admin=[CAPS.notes.write])


def who(role: str) -> Principal:
    """User ``u`` in tenant ``t``."""
    return Principal(tenant="t", user="u", role=role)


def test_classes_of_views_are_guarded_with_their_subclasses() -> None:
    """Every handler, inherited or defined later in a subclass, is guarded; a class without handlers is refused."""

    class Base:
        def get(self) -> str:
            return "base"

    @requires(CAPS.users.manage)
    class Page(Base):
        async def post(self) -> str:
            return "posted"

    class Sub(Page):
        def get(self) -> str:
            return "sub"

        def delete(self) -> str:
            return "gone"

    attempts: list[Callable[[], str]] = [Page().get, Sub().get, Sub().delete, lambda: asyncio.run(Page().post())]
    for attempt in attempts:
        with acting_as(who("viewer")), pytest.raises(PermissionDenied):
            attempt()
        with acting_as(who("owner")):
            assert attempt()
    assert Base().get() == "base", "the class it inherits from is left alone"
    with pytest.raises(ConfigError, match="no handlers"):
        requires(CAPS.users.manage)(type("Empty", (), {}))


def test_a_guarded_class_still_tells_its_subclasses_what_its_bases_do() -> None:
    """The bases' own `__init_subclass__` runs with its arguments; one that no base takes is refused as ever."""
    seen: list[tuple[str, str]] = []

    class Base:
        def __init_subclass__(cls, *, note: str = "", **kwargs: Any) -> None:
            seen.append((cls.__name__, note))
            super().__init_subclass__(**kwargs)

    @requires(CAPS.users.manage)
    class Page(Base):
        def get(self) -> str:
            return "page"

    @requires(CAPS.users.manage)
    class Alone:
        def get(self) -> str:
            return "alone"

    type("Sub", (Page,), {}, note="kept")
    assert seen == [("Page", ""), ("Sub", "kept")]
    with pytest.raises(TypeError):
        type("Wrong", (Alone,), {}, unknown=1)


class _FrameworkView:
    """As Django's own: it answers OPTIONS, and finds the handler by the request's method."""

    http_method_names = ("get", "options", "purge")

    def dispatch(self, method: str, **kwargs: Any) -> str:
        """The framework's door."""
        return str(getattr(self, method)(**kwargs))

    def options(self, **_: Any) -> str:
        """The names of the methods."""
        return "GET"


def _outcome(call: Callable[[], str]) -> str:
    try:
        with acting_as(who("viewer")):
            return call()
    except PermissionDenied:
        return "denied"


def test_the_door_that_a_class_writes_itself_is_guarded() -> None:
    """What stands in a class's own `dispatch` runs before any handler, so it is asked there; a framework's own door is left to the handlers."""
    guard = requires(CAPS.users.manage)
    ran: list[str] = []

    def dispatch(self: Any, method: str, **kwargs: Any) -> str:
        ran.append(method)
        return _FrameworkView.dispatch(self, method, **kwargs)

    def get(self: Any) -> str:
        return "got"

    own_door = guard(type("OwnDoor", (_FrameworkView,), {"dispatch": dispatch, "get": get}))
    only_door = guard(type("OnlyDoor", (type("Below", (_FrameworkView,), {"dispatch": dispatch}),), {}))
    later_door = type("LaterDoor", (guard(type("Page", (_FrameworkView,), {"get": get})),), {"dispatch": dispatch})
    assert [_outcome(lambda made=made: made().dispatch("get")) for made in (own_door, only_door, later_door)] == ["denied"] * 3  # type: ignore[misc]
    assert ran == []
    with acting_as(who("owner")):
        assert own_door().dispatch("get") == later_door().dispatch("get") == "got"
    plain_page: Any = guard(type("Plain", (_FrameworkView,), {"get": get}))
    assert plain_page.dispatch is _FrameworkView.dispatch
    assert _outcome(lambda: plain_page().dispatch("get")) == "denied"


def test_handlers_that_a_mixin_brings_to_a_subclass_are_guarded() -> None:
    """Before or after the guarded class in the line of bases, as plain methods, of a class, or static; and methods of HTTP that only the class names."""

    @requires(CAPS.users.manage)
    class Page(_FrameworkView):
        def get(self) -> str:
            return "page"

        def purge(self) -> str:
            return "purged"

    class Mixin:
        def get(self) -> str:
            return "mixed in"

        @classmethod
        def post(cls) -> str:
            return "mixed in"

        @staticmethod
        def delete() -> str:
            return "mixed in"

    before, after = type("Before", (Mixin, Page), {}), type("After", (Page, Mixin), {})
    calls = [getattr(made(), name) for made in (before, after) for name in ("get", "post", "delete", "purge")]
    assert [_outcome(call) for call in calls] == ["denied"] * 8
    with acting_as(who("owner")):
        assert [call() for call in calls] == [*["mixed in"] * 3, "purged", "page", *["mixed in"] * 2, "purged"]
    assert Mixin.post() == Mixin().get() == "mixed in", "the mixin is left alone"
    other: Any = type("Other", (Page,), {"methods": property(lambda self: self), "patch": lambda self: "patched"})
    assert _outcome(other().patch) == "denied", "`methods` may be something else altogether"
    closed: Any = type("Closed", (Page,), {"get": None, "methods": ["LINK"], "link": lambda self: "linked"})
    assert closed.get is None, "a handler that is taken away stays away"
    assert _outcome(closed().link) == "denied"


def test_a_handler_that_cannot_be_guarded_is_refused_where_it_is_defined() -> None:
    """Guarding nothing quietly would leave it open."""
    page = requires(CAPS.users.manage)(type("Page", (_FrameworkView,), {"get": lambda self: "page"}))
    with pytest.raises(ConfigError, match="cannot guard this"):
        type("Sub", (page,), {"_do": lambda self, what: what, "post": functools.partialmethod(lambda self, what: what, "x")})


def test_a_door_finds_the_object_among_its_keyword_arguments() -> None:
    """`resource="note"` names a handler's parameter; the class's own door has it in `**kwargs`. A door without is told so."""

    @requires(CAPS.notes.write, resource="note")
    class Page(_FrameworkView):
        def dispatch(self, method: str, **kwargs: Any) -> str:
            return super().dispatch(method, **kwargs)

        def get(self, note: dict[str, str]) -> str:
            return note["owner_id"]

    with acting_as(who("member")):
        assert Page().dispatch("get", note={"owner_id": "u"}) == "u"
        for note in ({"owner_id": "x"}, None):
            with pytest.raises(PermissionDenied):
                Page().dispatch("get", note=note)
        with pytest.raises(PermissionDenied):
            Page().dispatch("get")
    with pytest.raises(ConfigError, match="no parameter `note`"):
        type("Sub", (Page,), {"dispatch": lambda self: "x"})
