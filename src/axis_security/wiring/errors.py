"""What the gate refuses, each with its own code."""

from __future__ import annotations

from typing import ClassVar

from axis_security.core.errors import AxisError, ConfigError, Denied

__all__ = ["CrossSite", "NoDecision", "NoVisit", "NoWorkspace", "NotAMember", "UnmarkedEndpoint", "UnmarkedRoutes", "WorkspaceClosed"]


class CrossSite(Denied):
    """The request came from elsewhere, or without the token of its session."""

    code = "gate.csrf"

    def __init__(self, rule: str, public_text: str) -> None:
        super().__init__(
            what="the request was refused as forged",
            why=f"rule `{rule}`",
            fix="send X-CSRF-Token, or the form field csrf_token, with visit.csrf_token(); list every origin of the app",
            facts={"rule": rule},
        )
        self.sentence = public_text

    def public(self) -> dict[str, str]:
        """The code and a sentence for the person whose form expired."""
        return {"code": self.code, "message": self.sentence}


class UnmarkedEndpoint(Denied):
    """Nobody decided who may call this endpoint, so nobody may."""

    code = "gate.unmarked_endpoint"

    def __init__(self, route: str) -> None:
        super().__init__(
            what=f"`{route}` has neither guard nor reason",
            why="default deny: an endpoint that nobody marked is refused",
            fix='put @requires(caps.…), @signed_in or @public("why") right above its `def`',
            facts={"route": route},
        )


class UnmarkedRoutes(ConfigError):
    """The app holds routes that nobody marked. Raised at start-up in development."""

    code = "gate.unmarked_routes"

    def __init__(self, listing: str) -> None:
        super().__init__(
            what="the app has routes without a guard",
            why=f"in production each of them answers 403:\n{listing}\n",
            fix='put @requires(caps.…), @signed_in or @public("why") right above each `def`',
        )


class NoDecision(AxisError):
    """An endpoint answered although no guard was asked. The answer was withheld."""

    code = "gate.no_decision"
    http_status: ClassVar[int] = 500

    def __init__(self, route: str) -> None:
        super().__init__(
            what=f"`{route}` answered without a decision",
            why="its mark says that it is guarded, or it has none, and no guard ran: something in between answered in its place",
            fix="put @requires below every other decorator (a cache, for one), right above `def`",
            facts={"route": route},
        )


class NoWorkspace(Denied):
    """Somebody is signed in and has chosen no workspace."""

    code = "gate.no_workspace"
    public_text = "Please choose a workspace."

    def __init__(self) -> None:
        super().__init__(what="no workspace is chosen", why="the session names none", fix="offer a choice, then sessions.switch_tenant(…)")


class NotAMember(Denied):
    """The session's workspace has no such member (any more)."""

    code = "gate.not_a_member"
    public_text = "You are not a member of this workspace."

    def __init__(self) -> None:
        super().__init__(
            what="the person is no member of the session's workspace",
            why="the membership ended, or the workspace is gone",
            fix="nothing: that is the rule at work; offer the person's other workspaces",
        )


class WorkspaceClosed(Denied):
    """The workspace is suspended, or waits for its deletion."""

    code = "gate.workspace_closed"
    public_text = "This workspace is closed."

    def __init__(self, state: str) -> None:
        super().__init__(
            what="the workspace is closed",
            why=f"its state is `{state}`",
            fix="resume it, or take its deletion back",
            facts={"state": state},
        )


class NoVisit(AxisError):
    """Something asked for the request that is being handled, and there is none."""

    code = "gate.no_visit"

    def __init__(self) -> None:
        super().__init__(
            what="no request is being handled",
            why="this code runs outside the gate: the adapter is not installed, or a thread did not copy the context",
            fix="install the adapter; start threads through `contextvars.copy_context().run`",
        )
