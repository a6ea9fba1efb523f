"""The DSN policy, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from axis_security.core.errors import ConfigError
from axis_security.ops.tls import check_dsn, check_live, secure_dsn

BARE = "postgresql://app:hunter2@db.example.org/crm"  # axis-security: not-a-secret a made-up password for this test


def test_secure_dsn_passes_its_own_check() -> None:
    """What secure_dsn() gives has nothing left to find, and keeps user, host and database."""
    secured = secure_dsn(BARE)
    assert check_dsn(secured).ok
    parts = conninfo_to_dict(secured)
    assert (parts["user"], parts["host"], parts["dbname"], parts["sslrootcert"]) == ("app", "db.example.org", "crm", "system")


def test_bare_dsn_fails_with_one_finding_per_setting() -> None:
    """A DSN without TLS settings is found wanting in each of the five, and no finding shows the password."""
    result = check_dsn(BARE)
    assert not result.ok
    assert {finding.code for finding in result.findings} == {
        "tls.dsn_sslmode",
        "tls.dsn_ssl_min_protocol_version",
        "tls.dsn_channel_binding",
        "tls.dsn_gssencmode",
        "tls.dsn_require_auth",
    }
    assert "hunter2" not in repr(result.as_dict())


@pytest.mark.parametrize(
    "weak",
    [
        "sslmode=require",
        "sslmode=verify-ca",
        "sslmode=prefer",
        "ssl_min_protocol_version=TLSv1.2",
        "channel_binding=prefer",
        "require_auth=password",
    ],
)
def test_weaker_setting_is_refused_and_found(weak: str) -> None:
    """A DSN that argues against the policy is refused by secure_dsn() and found by check_dsn()."""
    dsn = f"{BARE}?{weak}"
    with pytest.raises(ConfigError) as caught:
        secure_dsn(dsn)
    assert "hunter2" not in str(caught.value)
    assert not check_dsn(dsn).ok


def test_a_pooler_loses_channel_binding_and_nothing_else() -> None:
    """Through PgBouncer the policy drops channel binding only."""
    secured = secure_dsn(BARE, pooled=True)
    assert "channel_binding" not in conninfo_to_dict(secured)
    assert check_dsn(secured, pooled=True).ok
    assert {finding.code for finding in check_dsn(secured).findings} == {"tls.dsn_channel_binding"}


@pytest.mark.parametrize("local", ["host=/run/postgresql dbname=crm", "dbname=crm"])
def test_local_sockets_need_no_tls(local: str) -> None:
    """A Unix-domain socket passes: there is no network in between."""
    assert check_dsn(local).ok


@pytest.mark.parametrize(
    "dsn",
    [
        "host=/run/postgresql,db.example.org",
        "host=/run/postgresql hostaddr=192.0.2.1",
        "host=,db.example.org",
        "service=crm",
        "hostaddr=192.0.2.1",
    ],
)
def test_a_socket_first_does_not_excuse_a_network_behind_it(dsn: str) -> None:
    """libpq goes through a list of hosts, and prefers an address: where one of them is on the network the settings must hold."""
    assert not check_dsn(dsn).ok


def test_a_host_from_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same string means the network where PGHOST says so."""
    assert check_dsn("dbname=crm").ok
    for name, value, ok in (
        ("PGHOST", "db.example.org", False),
        ("PGHOST", "/tmp", True),
        ("PGHOSTADDR", "192.0.2.1", False),
        ("PGSERVICE", "x", False),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert check_dsn("dbname=crm").ok is ok, name


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    """No DSN text makes the check raise; an unreadable one is not ok."""
    result = check_dsn(text)
    assert result.ok or result.findings


@pytest.mark.parametrize(
    ("row", "ok"),
    [
        ((True, "TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, False), True),
        ((True, "TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", 256, False), False),
        ((False, None, None, None, False), False),
        ((False, None, None, None, True), True),
        (None, False),
    ],
)
def test_live_answer_is_judged(row: tuple[object, ...] | None, ok: bool) -> None:
    """Only TLS 1.3, or a local socket, is ok; no row at all is not."""
    assert check_live(row).ok is ok
