"""Faults that authentication systems were published with, and the test here that each would turn red."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

INCIDENTS = {
    "CVE-2024-39329, CVE-2025-13473: a path that skips the hash": "unit/auth/test_login.py::test_cve_2024_39329_and_cve_2025_13473_login_does_the_same_work_for_every_kind_of_account",
    "a password of 81 bytes is an exception for one kind of account only": "unit/auth/test_login.py::test_an_odd_password_is_a_typed_refusal_for_every_kind_of_account",
    "CVE-2013-1443, CVE-2021-45115, CVE-2023-46695: work before the length is checked": "unit/auth/test_passwords.py::test_unusable_text_is_refused_before_any_work",
    "a stored hash names a cost, and it is spent": "unit/auth/test_passwords.py::test_hostile_stored_costs_are_never_spent",
    "CVE-2019-19844: the letter goes to the address that was typed": "unit/auth/test_lifecycle.py::test_cve_2019_19844_letters_go_to_the_stored_address_only",
    "CVE-2026-32700: token and value are written apart": "integration/auth/test_vault.py::test_cve_2026_32700_two_racing_changes_of_address_never_cross",
    "CVE-2019-16109, CVE-2026-34531: an empty token matches an empty row": "integration/auth/test_vault.py::test_cve_2019_16109_and_2026_34531_an_empty_token_matches_nothing",
    "CVE-2015-8314: a remember cookie outlives the server's intent": "unit/auth/test_stepup.py::test_cve_2015_8314_a_stolen_remember_token_dies_when_the_server_says_so",
    "CVE-2025-61928: the subject is taken from the body": "unit/auth/test_login.py::test_cve_2025_61928_no_flow_takes_a_session_and_a_user",
    "GHSA-xg6x-h9c9-2m83: a session from before the second factor is cached as whole": "unit/auth/test_login.py::test_ghsa_xg6x_h9c9_2m83_a_pending_login_is_no_session",
    "GHSA-cq3f-vc6p-68fh: an owner that is missing ends the check": "unit/rbac/test_policy.py::test_owns_compares_text_and_denies_what_is_missing",
    "CVE-2026-45364: the address as it came is the throttle's key": "unit/auth/test_network.py::test_cve_2026_45364_one_customer_is_one_network",
    "a forwarded address is believed from anybody": "unit/auth/test_network.py::test_a_forged_forwarded_for_changes_nothing",
    "GHSA-f66q-9rf6-8795, GHSA-97r5-pg8x-p63p: a step-up is satisfied by the wrong proof": "unit/auth/test_stepup.py::test_ghsa_f66q_9rf6_8795_and_ghsa_97r5_pg8x_p63p_a_proof_is_for_one_person_session_and_act_and_once",
    "CVE-2023-49438, GHSA-w2j7-f3c6-g8cw: a return address leads elsewhere": "unit/auth/test_redirects.py::test_cve_2023_49438_and_ghsa_w2j7_f3c6_g8cw_the_redirect_corpus_leads_home",
    "CVE-2025-68481: a link is not bound to the account and purpose it was made for": "unit/auth/test_lifecycle.py::test_cve_2026_28802_and_cve_2026_28498_an_unknown_purpose_or_key_is_a_refusal",
    "CVE-2026-28802, CVE-2026-28498: an unknown algorithm counts as a yes": "unit/auth/test_lifecycle.py::test_cve_2026_28802_and_cve_2026_28498_an_unknown_purpose_or_key_is_a_refusal",
    "CVE-2026-27205, CVE-2023-30861: a touched session without Vary": "unit/auth/test_sessions.py::test_cve_2026_27205_every_touch_of_a_session_sets_vary_and_no_store",
    "CVE-2023-23934 and prefix bypasses: cookie names that only look like ours": "unit/auth/test_cookies.py::test_cve_2023_23934_and_prefix_bypass_names_that_only_look_like_ours_are_ignored",
    "CVE-2024-56323, CVE-2025-25196, CVE-2026-24851: a short cut answers otherwise than the model": "property/test_rbac.py::test_compiled_bits_are_the_sets",
    "tokens of a deactivated account still work": "unit/auth/test_lifecycle.py::test_a_disabled_account_is_out_at_its_next_request_by_every_road",
    "a new way to sign in skips the second factor": "unit/auth/test_login.py::test_only_the_choke_point_starts_sessions",
    "forgot-password costs more for an account that exists": "unit/auth/test_login.py::test_forgot_resend_and_register_do_equal_work",
    "a TOTP code is accepted twice": "unit/auth/test_totp.py::test_a_code_works_once_and_the_enrolment_code_not_again",
    "a recovery code is used by many callers at once": "unit/auth/test_totp.py::test_fifty_parallel_callers_one_winner",
    "a reset switches the second factor off": "unit/auth/test_lifecycle.py::test_a_reset_works_once_keeps_the_factor_and_ends_every_session",
    "a mail scanner burns the link": "unit/auth/test_lifecycle.py::test_a_get_never_consumes",
    "a guard above the route's decorator guards nothing": "unit/rbac/test_guard.py::test_guarding_a_registered_route_is_refused",
}
"""Incident: the test. A row whose test is renamed or deleted is red here, so that a fault once known stays watched."""


@pytest.mark.parametrize("incident", INCIDENTS)
def test_each_published_fault_has_its_test(incident: str) -> None:
    """The test exists, under the name given, and asserts or expects something."""
    file, name = INCIDENTS[incident].split("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name]
    held = [
        node for node in ast.walk(function) if isinstance(node, ast.Assert) or (isinstance(node, ast.Attribute) and node.attr == "raises")
    ]
    assert held
