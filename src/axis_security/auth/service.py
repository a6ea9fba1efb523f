"""Everything for signing in, put together once from keys and policies. Hosts hold one :class:`Auth`; each part can also be built by itself."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from axis_security.auth.browsers import Browsers
from axis_security.auth.cookies import CookieProfile
from axis_security.auth.csrf import Csrf
from axis_security.auth.invites import InvitationLinks
from axis_security.auth.lifecycle import Lifecycle
from axis_security.auth.login import Login
from axis_security.auth.password_rules import PasswordRules
from axis_security.auth.recovery import DigestRing, RecoveryCodes
from axis_security.auth.remember import RememberPolicy, RememberTokens
from axis_security.auth.sessions import SessionPolicy, Sessions
from axis_security.auth.signing import SigningKeys
from axis_security.auth.stepup import StepUp
from axis_security.auth.throttle import Throttle, ThrottlePolicy
from axis_security.auth.tokens import PurposeTokens, TokenPolicy
from axis_security.auth.totp import Sealer, Totp, TotpPolicy
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.events import EventSink

__all__ = ["Auth"]


class Auth:
    """The flows of authentication, wired. Frozen after construction; holds no connection and no state.

    Args:
        keys: the cookie keys, oldest first.
        digests: the digest keys for everything at rest.
        totp: how TOTP codes are accepted, with the product's name.
        sealer: seals TOTP seeds.
        origins: the app's own origins, for CSRF.
        events: takes the audit events.
        profile: how cookies are named and marked.
        session, remember_policy, token, throttle_policy, rules: policies; the defaults hold the ASVS rows that ``report --asvs`` lists.
        require_verified: whether an account may sign in before its address was confirmed.
        clock: tells the time.
        entropy: random bytes.
    """

    def __init__(
        self,
        *,
        keys: SigningKeys,
        digests: DigestRing,
        totp: TotpPolicy,
        sealer: Sealer,
        origins: tuple[str, ...],
        events: EventSink,
        profile: CookieProfile | None = None,
        session: SessionPolicy | None = None,
        remember_policy: RememberPolicy | None = None,
        token: TokenPolicy | None = None,
        throttle_policy: ThrottlePolicy | None = None,
        rules: PasswordRules | None = None,
        require_verified: bool = True,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        profile = profile or CookieProfile.production()
        self.profile: Final = profile
        self.remember: Final = RememberTokens(
            profile=profile, keys=keys, digests=digests, events=events, policy=remember_policy, clock=clock, entropy=entropy
        )
        self.sessions: Final = Sessions(
            profile=profile,
            keys=keys,
            digests=digests,
            remember=self.remember,
            events=events,
            policy=session,
            clock=clock,
            entropy=entropy,
        )
        self.tokens: Final = PurposeTokens(
            profile=profile, keys=keys, digests=digests, events=events, policy=token, clock=clock, entropy=entropy
        )
        self.throttle: Final = Throttle(digests=digests, events=events, policy=throttle_policy, clock=clock)
        self.browsers: Final = Browsers(profile=profile, keys=keys, entropy=entropy)
        self.totp: Final = Totp(policy=totp, sealer=sealer, events=events, clock=clock, entropy=entropy)
        self.recovery: Final = RecoveryCodes(digests=digests, events=events, clock=clock, entropy=entropy)
        self.login: Final = Login(
            sessions=self.sessions,
            tokens=self.tokens,
            throttle=self.throttle,
            browsers=self.browsers,
            remember=self.remember,
            totp=self.totp,
            recovery=self.recovery,
            keys=keys,
            events=events,
            require_verified=require_verified,
            clock=clock,
        )
        self.step_up: Final = StepUp(login=self.login, events=events, clock=clock)
        self.lifecycle: Final = Lifecycle(
            tokens=self.tokens, sessions=self.sessions, throttle=self.throttle, events=events, rules=rules, clock=clock, entropy=entropy
        )
        self.invitations: Final = InvitationLinks(tokens=self.tokens, digests=digests)
        self.csrf: Final = Csrf(keys=keys, origins=origins, events=events, clock=clock, entropy=entropy)
