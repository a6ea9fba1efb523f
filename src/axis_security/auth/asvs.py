"""OWASP ASVS 5.0.0, chapters V6 and V7 and section V3.3: what the library holds, and the test that proves it; what is the host's.

A row is ``satisfied`` only with a test; the table's own test checks that each of them exists and that no requirement is missing. Where a setting decides,
:func:`assess` looks at the host's :class:`~axis_security.auth.service.Auth`, or at the defaults: a row that they give up is ``configured away``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from axis_security.auth.cookies import CookieProfile
from axis_security.auth.password_rules import PasswordRules
from axis_security.auth.service import Auth
from axis_security.auth.tokens import Purpose, TokenPolicy
from axis_security.auth.totp import TotpPolicy
from axis_security.core.settings import Environment

__all__ = ["ASVS", "AsvsRow", "Standing", "assess"]


class Standing(enum.StrEnum):
    """Who holds a requirement."""

    SATISFIED = "satisfied"
    CONFIGURED_AWAY = "configured away"
    HOST = "host's duty"


@dataclass(frozen=True, slots=True)
class AsvsRow:
    """One requirement.

    Args:
        id: such as ``V7.2.4``.
        level: 1 to 3.
        standing: who holds it.
        how: in a few words; for the host, what there is to do.
        test: the test that proves it, as pytest names it; ``None`` for the host's rows.
    """

    id: str
    level: int
    standing: Standing
    how: str
    test: str | None = None

    def as_dict(self) -> dict[str, str | int | None]:
        """JSON-ready form with stable key order."""
        return {"id": self.id, "level": self.level, "standing": self.standing.value, "how": self.how, "test": self.test}


_S: Final = "tests/unit/auth/test_sessions.py::test_"
_L: Final = "tests/unit/auth/test_login.py::test_"
_T: Final = "tests/unit/auth/test_throttle.py::test_"
_Y: Final = "tests/unit/auth/test_lifecycle.py::test_"
_U: Final = "tests/unit/auth/test_stepup.py::test_"
_C: Final = "tests/unit/auth/test_cookies.py::test_"
_P: Final = "tests/unit/auth/test_passwords.py::test_"
_R: Final = "tests/unit/auth/test_password_rules.py::test_"
_O: Final = "tests/unit/auth/test_totp.py::test_"


def _held(id: str, level: int, how: str, test: str) -> AsvsRow:
    return AsvsRow(id, level, Standing.SATISFIED, how, test)


def _host(id: str, level: int, how: str) -> AsvsRow:
    return AsvsRow(id, level, Standing.HOST, how)


ASVS: Final[tuple[AsvsRow, ...]] = (
    _held("V3.3.1", 1, "Secure and a __Host- name on every cookie", _C + "asvs_3_3_every_cookie_is_host_bound_secure_and_hidden_from_scripts"),
    _held("V3.3.2", 2, "SameSite by purpose: Lax for links, Strict for our own forms", _C + "asvs_3_3_every_cookie_is_host_bound_secure_and_hidden_from_scripts"),
    _held("V3.3.3", 2, "__Host- by default", _C + "asvs_3_3_every_cookie_is_host_bound_secure_and_hidden_from_scripts"),
    _held("V3.3.4", 2, "HttpOnly; session ids travel in Set-Cookie only", _C + "asvs_3_3_every_cookie_is_host_bound_secure_and_hidden_from_scripts"),
    _held("V3.3.5", 3, "a larger cookie is refused when written", _C + "asvs_3_3_5_no_cookie_exceeds_4096_bytes"),
    _held("V6.1.1", 1, "docs/explanation/sign-in.md; strangers cannot lock the owner's browser", _T + "strangers_cannot_lock_the_owner_out_of_their_own_browser"),
    _host("V6.1.2", 2, "list your product's words in PasswordRules(context_words=…) and document them"),
    _host("V6.1.3", 2, "document the ways in that you offer; docs/explanation/sign-in.md lists ours"),
    _held("V6.2.1", 1, "15 characters, never below 8", _R + "length_rules"),
    _held("V6.2.2", 1, "Lifecycle.change_password", _Y + "a_password_change_needs_the_current_one_and_ends_the_others"),
    _held("V6.2.3", 1, "current and new password", _Y + "a_password_change_needs_the_current_one_and_ends_the_others"),
    _held("V6.2.4", 1, "a bundled list of 20,000", _R + "the_common_list_covers_the_top_3000_and_ignores_case"),
    _held("V6.2.5", 1, "no composition rules", _R + "no_composition_rules"),
    _host("V6.2.6", 1, "type=password in your forms"),
    _host("V6.2.7", 1, "allow paste in your forms"),
    _held("V6.2.8", 1, "no truncation, no case change; NFC only, see docs/explanation/passwords.md", _P + "canonically_equal_spellings_are_one_password"),
    _held("V6.2.9", 2, "up to 512 characters", _P + "passwords_of_64_and_of_512_characters_are_allowed"),
    _held("V6.2.10", 2, "passwords do not expire: no rule asks for it", _Y + "a_password_does_not_expire"),
    _held("V6.2.11", 2, "context words are refused", _R + "context_words_and_repetition"),
    _held("V6.2.12", 2, "offline filter or range client", _R + "the_filter_finds_every_listed_password_and_rejects_by_it"),
    _held("V6.3.1", 1, "budgets by account, browser and network; 100 failures at most", _T + "the_account_budget_holds_in_every_spelling_and_from_everywhere"),
    _host("V6.3.2", 1, "the library makes no account; make none by default either"),
    _host("V6.3.3", 2, "TOTP is there; require AAL2 where you must. Hardware factors (level 3) are not offered"),
    _held("V6.3.4", 2, "one choke point for every way in", _L + "every_way_in_asks_for_the_second_factor"),
    _host("V6.3.5", 3, "write to people on auth.login, auth.session_reused and auth.remember_token_reused events"),
    _held("V6.3.6", 3, "a letter verifies or resets; it never signs in", _Y + "a_reset_works_once_keeps_the_factor_and_ends_every_session"),
    _host("V6.3.7", 3, "write to people on auth.password_changed, auth.totp_* and address changes"),
    _held("V6.3.8", 3, "equal work, operations and sentence on login, forgot, resend and register", _L + "forgot_resend_and_register_do_equal_work"),
    _held("V6.4.1", 1, "tokens of 256 bits, single use, short; the person chooses the password", _Y + "tokens_expire_by_purpose"),
    _host("V6.4.2", 1, "the library has no hints and no questions; add none"),
    _held("V6.4.3", 2, "a reset keeps the second factor", _Y + "a_reset_works_once_keeps_the_factor_and_ends_every_session"),
    _host("V6.4.4", 2, "prove identity before you remove a factor for somebody; a recovery code is one proof"),
    _host("V6.4.5", 3, "nothing here expires but sessions and letters; remind people of what you add"),
    _held("V6.4.6", 3, "an administrator starts a reset and never chooses", _Y + "an_administrator_starts_a_reset_and_never_chooses"),
    _held("V6.5.1", 2, "every code is claimed in one atomic step", _O + "fifty_parallel_callers_one_winner"),
    _held("V6.5.2", 2, "recovery codes have 120 bits", _O + "recovery_codes_are_120_bits_single_use_and_replaced_as_a_set"),
    _held("V6.5.3", 2, "seeds and codes come from the system's CSPRNG", _L + "randomness_comes_from_the_system_and_ids_have_256_bits"),
    _held("V6.5.4", 2, "120 bits", _O + "recovery_codes_are_120_bits_single_use_and_replaced_as_a_set"),
    _held("V6.5.5", 2, "reset letters 10 minutes; TOTP codes of the present step only", _O + "the_drift_window_is_exact"),
    _held("V6.5.6", 3, "disable and enrol again", _O + "enrol_and_disable_need_a_fresh_proof_of_the_same_person"),
    _host("V6.5.7", 3, "no biometrics here"),
    _held("V6.5.8", 3, "the server's clock", _O + "the_drift_window_is_exact"),
    _host("V6.6.1", 2, "no telephone codes here; offer none"),
    _held("V6.6.2", 2, "a token is bound to purpose and account; a pending login to its browser", _Y + "cve_2026_28802_and_cve_2026_28498_an_unknown_purpose_or_key_is_a_refusal"),
    _held("V6.6.3", 2, "256-bit tokens; letters are counted", _T + "letters_are_counted_by_account_and_by_network"),
    _host("V6.6.4", 3, "no push messages here"),
    _host("V6.7.1", 3, "no certificates here"),
    _host("V6.7.2", 3, "no challenge of a device here"),
    _host("V6.8.1", 2, "key identities by provider before you call Login.external"),
    _host("V6.8.2", 2, "check the provider's assertion before you call Login.external"),
    _host("V6.8.3", 2, "check the provider's assertion before you call Login.external"),
    _host("V6.8.4", 2, "check acr, amr and auth_time before you call Login.external"),
    _held("V7.1.1", 2, "SessionPolicy.documented() and docs/explanation/sign-in.md", _S + "the_longest_unused_session_gives_way_at_the_limit"),
    _held("V7.1.2", 2, "SessionPolicy.documented()", _S + "the_longest_unused_session_gives_way_at_the_limit"),
    _host("V7.1.3", 2, "document your identity provider's sessions"),
    _held("V7.2.1", 1, "the store decides at every request", _S + "resolving_is_one_store_operation_and_a_forged_cookie_none"),
    _held("V7.2.2", 1, "a fresh reference for each session", _S + "an_unknown_id_is_never_adopted"),
    _held("V7.2.3", 1, "256 bits from the system's CSPRNG", _L + "randomness_comes_from_the_system_and_ids_have_256_bits"),
    _held("V7.2.4", 1, "a new id at login and step-up; the old one ends", _U + "a_step_up_makes_fresh_and_gives_a_new_id"),
    _held("V7.3.1", 2, "30 minutes", _S + "the_idle_limit_holds_and_use_prolongs"),
    _held("V7.3.2", 2, "12 hours", _S + "the_absolute_limit_holds_through_use_and_rotation"),
    _held("V7.4.1", 1, "sign-out ends the session in the store", _S + "sign_out_kills_the_session_on_the_server"),
    _held("V7.4.2", 1, "disabling ends everything at once", _Y + "a_disabled_account_is_out_at_its_next_request_by_every_road"),
    _held("V7.4.3", 2, "a password change or reset ends the others; revoke_others after a change of factors", _Y + "a_password_change_needs_the_current_one_and_ends_the_others"),
    _host("V7.4.4", 2, "a sign-out button on every page"),
    _held("V7.4.5", 2, "revoke_all for one, SessionPolicy.generation for everybody", _S + "key_rotation_logs_nobody_out_and_a_generation_everybody"),
    _held("V7.5.1", 2, "a proof of five minutes for address, password and factors", _Y + "account_changes_need_a_fresh_proof"),
    _held("V7.5.2", 2, "devices, revoke, revoke_others; with a proof of five minutes", _S + "devices_are_listed_and_ended_by_public_handle"),
    _held("V7.5.3", 3, "StepUp.issue_proof: one act, one session, once", _U + "ghsa_f66q_9rf6_8795_and_ghsa_97r5_pg8x_p63p_a_proof_is_for_one_person_session_and_act_and_once"),
    _host("V7.6.1", 2, "align your identity provider's session lifetimes"),
    _host("V7.6.2", 2, "begin single sign-on by an act of the person"),
)  # fmt: skip
"""Every requirement of V3.3, V6 and V7, in the standard's order."""


@dataclass(frozen=True, slots=True)
class _Policies:
    profile: CookieProfile
    token: TokenPolicy
    totp: TotpPolicy
    rules: PasswordRules


def _plain_cookies(at: _Policies) -> str | None:
    return "the development cookies are in use" if at.profile.environment is Environment.DEVELOPMENT else None


def _lifetimes(at: _Policies) -> str | None:
    if at.token.of(Purpose.PASSWORD_RESET) > timedelta(minutes=10):
        return "reset letters last longer than 10 minutes"
    # RFC 6238 section 5.2 recommends one step of drift, which is our default; the requirement, read strictly, allows none.
    return "a code of a neighbouring step is accepted, once; TotpPolicy(drift_steps=0) is strict" if at.totp.drift_steps else None


_SETTINGS: Final[Mapping[str, Callable[[_Policies], str | None]]] = MappingProxyType(
    {
        "V3.3.1": _plain_cookies,
        "V3.3.3": _plain_cookies,
        "V6.2.11": lambda at: None if at.rules.context_words else "no context words; set PasswordRules(context_words=…)",
        "V6.2.12": lambda at: None if at.rules.breached is not None else "no breach filter; set PasswordRules(breached=…)",
        "V6.5.5": _lifetimes,
    }
)


def assess(auth: Auth | None = None) -> tuple[AsvsRow, ...]:
    """The table for a host's *auth*, or for the defaults: rows that the settings give up are ``configured away``."""
    if auth is None:
        at = _Policies(CookieProfile(), TokenPolicy(), TotpPolicy(issuer="defaults"), PasswordRules())
    else:
        at = _Policies(auth.profile, auth.tokens.policy, auth.totp.policy, auth.lifecycle.rules)
    return tuple(_seen(row, at) for row in ASVS)


def _seen(row: AsvsRow, at: _Policies) -> AsvsRow:
    lost = _SETTINGS[row.id](at) if row.id in _SETTINGS else None
    return row if lost is None else AsvsRow(row.id, row.level, Standing.CONFIGURED_AWAY, lost)
