"""What is promised, and ready-made looks that measure each promise on a running system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axis_security.core.lazy import front_door

if TYPE_CHECKING:
    from axis_security.ops.promises.accounts import argon2id as argon2id
    from axis_security.ops.promises.accounts import cookies_seen as cookies_seen
    from axis_security.ops.promises.accounts import session_cookies as session_cookies
    from axis_security.ops.promises.accounts import stored_passwords as stored_passwords
    from axis_security.ops.promises.accounts import totp as totp
    from axis_security.ops.promises.answer import Look as Look
    from axis_security.ops.promises.answer import findings_of as findings_of
    from axis_security.ops.promises.data import key_ring as key_ring
    from axis_security.ops.promises.data import objects as objects
    from axis_security.ops.promises.data import sealed_column as sealed_column
    from axis_security.ops.promises.isolation import app_login as app_login
    from axis_security.ops.promises.isolation import as_declared as as_declared
    from axis_security.ops.promises.isolation import strangers as strangers
    from axis_security.ops.promises.rights import managers as managers
    from axis_security.ops.promises.rights import members_held as members_held
    from axis_security.ops.promises.rights import policy_lock as policy_lock
    from axis_security.ops.promises.rights import routes as routes
    from axis_security.ops.promises.rights import write_policy_lock as write_policy_lock
    from axis_security.ops.promises.running import audit_log as audit_log
    from axis_security.ops.promises.running import backups as backups
    from axis_security.ops.promises.running import drills as drills
    from axis_security.ops.promises.running import evidence_chain as evidence_chain
    from axis_security.ops.promises.running import gate as gate
    from axis_security.ops.promises.running import health as health
    from axis_security.ops.promises.running import secrets_manager as secrets_manager
    from axis_security.ops.promises.running import security_txt as security_txt
    from axis_security.ops.promises.running import served_text as served_text
    from axis_security.ops.promises.running import source_scan as source_scan
    from axis_security.ops.promises.table import PROMISES as PROMISES
    from axis_security.ops.promises.table import Promise as Promise
    from axis_security.ops.promises.table import Promises as Promises
    from axis_security.ops.promises.transport import database_connection as database_connection
    from axis_security.ops.promises.transport import endpoint as endpoint

_MODULES: Final = {
    "accounts": ("argon2id", "cookies_seen", "session_cookies", "stored_passwords", "totp"),
    "answer": ("Look", "findings_of"),
    "data": ("key_ring", "objects", "sealed_column"),
    "isolation": ("app_login", "as_declared", "strangers"),
    "rights": ("managers", "members_held", "policy_lock", "routes", "write_policy_lock"),
    "running": (
        "audit_log", "backups", "drills", "evidence_chain", "gate", "health", "secrets_manager", "security_txt", "served_text", "source_scan",
    ),
    "table": ("PROMISES", "Promise", "Promises"),
    "transport": ("database_connection", "endpoint"),
}  # fmt: skip
_HOME: Final = {name: f"axis_security.ops.promises.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [  # noqa: RUF022  # by module, as above
    "argon2id", "cookies_seen", "session_cookies", "stored_passwords", "totp", "Look", "findings_of", "key_ring", "objects", "sealed_column", "app_login",
    "as_declared", "strangers", "managers", "members_held", "policy_lock", "routes", "write_policy_lock", "audit_log", "backups", "drills", "evidence_chain",
    "gate", "health", "secrets_manager", "security_txt", "served_text", "source_scan", "PROMISES", "Promise", "Promises", "database_connection", "endpoint",
]  # fmt: skip

__getattr__, __dir__ = front_door(__name__, _HOME)
