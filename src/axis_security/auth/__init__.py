"""Signing in and staying signed in: passwords, second factors, sessions, letters with links, and a vault that the application cannot read. The names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axis_security.core.lazy import front_door

if TYPE_CHECKING:
    from axis_security.auth.breach import BreachFilter as BreachFilter
    from axis_security.auth.cookies import CookieProfile as CookieProfile
    from axis_security.auth.csrf import CsrfAllowed as CsrfAllowed
    from axis_security.auth.csrf import CsrfRefused as CsrfRefused
    from axis_security.auth.csrf import RequestOrigin as RequestOrigin
    from axis_security.auth.kdf_pool import Busy as Busy
    from axis_security.auth.kdf_pool import PasswordService as PasswordService
    from axis_security.auth.kdf_pool import PoolSettings as PoolSettings
    from axis_security.auth.login_states import NeedsSecondFactor as NeedsSecondFactor
    from axis_security.auth.login_states import PendingLogin as PendingLogin
    from axis_security.auth.login_states import Refused as Refused
    from axis_security.auth.login_states import SignedIn as SignedIn
    from axis_security.auth.password_rules import PasswordRules as PasswordRules
    from axis_security.auth.passwords import Passwords as Passwords
    from axis_security.auth.peppers import PepperRing as PepperRing
    from axis_security.auth.recovery import DigestRing as DigestRing
    from axis_security.auth.remember import RememberPolicy as RememberPolicy
    from axis_security.auth.service import Auth as Auth
    from axis_security.auth.sessions import Anonymous as Anonymous
    from axis_security.auth.sessions import Authenticated as Authenticated
    from axis_security.auth.sessions import Device as Device
    from axis_security.auth.sessions import Session as Session
    from axis_security.auth.sessions import SessionPolicy as SessionPolicy
    from axis_security.auth.signing import SigningKeys as SigningKeys
    from axis_security.auth.stepup import CodeNeeded as CodeNeeded
    from axis_security.auth.stepup import NeedsStepUp as NeedsStepUp
    from axis_security.auth.stepup import SteppedUp as SteppedUp
    from axis_security.auth.store_postgres import AsyncPostgresVault as AsyncPostgresVault
    from axis_security.auth.store_postgres import PostgresVault as PostgresVault
    from axis_security.auth.store_split import AsyncSplitStore as AsyncSplitStore
    from axis_security.auth.store_split import SplitStore as SplitStore
    from axis_security.auth.store_valkey import AsyncValkeyStore as AsyncValkeyStore
    from axis_security.auth.store_valkey import ValkeyStore as ValkeyStore
    from axis_security.auth.throttle import ThrottlePolicy as ThrottlePolicy
    from axis_security.auth.throttle import TooMany as TooMany
    from axis_security.auth.tokens import Landed as Landed
    from axis_security.auth.tokens import LinkRefused as LinkRefused
    from axis_security.auth.tokens import Purpose as Purpose
    from axis_security.auth.tokens import TokenPolicy as TokenPolicy
    from axis_security.auth.totp import Sealer as Sealer
    from axis_security.auth.totp import TotpPolicy as TotpPolicy
    from axis_security.auth.vault_sql import VAULT as VAULT
    from axis_security.auth.visitor import Visitor as Visitor
    from axis_security.auth.work import AsyncAuthRunner as AsyncAuthRunner
    from axis_security.auth.work import AuthRunner as AuthRunner

_HOME: Final = {
    "Anonymous": "axis_security.auth.sessions",
    "AsyncAuthRunner": "axis_security.auth.work",
    "AsyncPostgresVault": "axis_security.auth.store_postgres",
    "AsyncSplitStore": "axis_security.auth.store_split",
    "AsyncValkeyStore": "axis_security.auth.store_valkey",
    "Auth": "axis_security.auth.service",
    "AuthRunner": "axis_security.auth.work",
    "Authenticated": "axis_security.auth.sessions",
    "BreachFilter": "axis_security.auth.breach",
    "Busy": "axis_security.auth.kdf_pool",
    "CodeNeeded": "axis_security.auth.stepup",
    "CookieProfile": "axis_security.auth.cookies",
    "CsrfAllowed": "axis_security.auth.csrf",
    "CsrfRefused": "axis_security.auth.csrf",
    "Device": "axis_security.auth.sessions",
    "DigestRing": "axis_security.auth.recovery",
    "Landed": "axis_security.auth.tokens",
    "LinkRefused": "axis_security.auth.tokens",
    "NeedsSecondFactor": "axis_security.auth.login_states",
    "NeedsStepUp": "axis_security.auth.stepup",
    "PasswordRules": "axis_security.auth.password_rules",
    "PasswordService": "axis_security.auth.kdf_pool",
    "Passwords": "axis_security.auth.passwords",
    "PendingLogin": "axis_security.auth.login_states",
    "PepperRing": "axis_security.auth.peppers",
    "PoolSettings": "axis_security.auth.kdf_pool",
    "PostgresVault": "axis_security.auth.store_postgres",
    "Purpose": "axis_security.auth.tokens",
    "Refused": "axis_security.auth.login_states",
    "RememberPolicy": "axis_security.auth.remember",
    "RequestOrigin": "axis_security.auth.csrf",
    "Sealer": "axis_security.auth.totp",
    "Session": "axis_security.auth.sessions",
    "SessionPolicy": "axis_security.auth.sessions",
    "SignedIn": "axis_security.auth.login_states",
    "SigningKeys": "axis_security.auth.signing",
    "SplitStore": "axis_security.auth.store_split",
    "SteppedUp": "axis_security.auth.stepup",
    "ThrottlePolicy": "axis_security.auth.throttle",
    "TokenPolicy": "axis_security.auth.tokens",
    "TooMany": "axis_security.auth.throttle",
    "TotpPolicy": "axis_security.auth.totp",
    "VAULT": "axis_security.auth.vault_sql",
    "ValkeyStore": "axis_security.auth.store_valkey",
    "Visitor": "axis_security.auth.visitor",
}

__all__ = [
    "VAULT",
    "Anonymous",
    "AsyncAuthRunner",
    "AsyncPostgresVault",
    "AsyncSplitStore",
    "AsyncValkeyStore",
    "Auth",
    "AuthRunner",
    "Authenticated",
    "BreachFilter",
    "Busy",
    "CodeNeeded",
    "CookieProfile",
    "CsrfAllowed",
    "CsrfRefused",
    "Device",
    "DigestRing",
    "Landed",
    "LinkRefused",
    "NeedsSecondFactor",
    "NeedsStepUp",
    "PasswordRules",
    "PasswordService",
    "Passwords",
    "PendingLogin",
    "PepperRing",
    "PoolSettings",
    "PostgresVault",
    "Purpose",
    "Refused",
    "RememberPolicy",
    "RequestOrigin",
    "Sealer",
    "Session",
    "SessionPolicy",
    "SignedIn",
    "SigningKeys",
    "SplitStore",
    "SteppedUp",
    "ThrottlePolicy",
    "TokenPolicy",
    "TooMany",
    "TotpPolicy",
    "ValkeyStore",
    "Visitor",
]

__getattr__, __dir__ = front_door(__name__, _HOME)
