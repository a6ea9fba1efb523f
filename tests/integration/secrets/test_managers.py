"""Secrets from real managers: OpenBao, and AWS' API as moto serves it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta

import boto3
import pytest
from botocore.stub import Stubber
from moto.server import ThreadedMotoServer
from mypy_boto3_secretsmanager import SecretsManagerClient

from axis_security.core.events import AuditEvent, EventKind
from axis_security.core.secret import Secret
from axis_security.ops.secrets import (
    AppRoleLogin,
    AwsSecretsManager,
    RefreshPolicy,
    SecretManager,
    SecretMissing,
    SecretRefused,
    SecretsUnavailable,
    Stage,
    TokenLogin,
    VaultKv2,
    VaultSession,
)
from axis_security.testing.servers import OpenBao


class Sink:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        self.events.append(event)


def as_root(server: OpenBao) -> VaultSession:
    """A session with the root token."""
    return VaultSession(url=server.url, login=TokenLogin(lambda: Secret(server.root_token)))


def put(server: OpenBao, name: str, value: str) -> None:
    """Write a new version."""
    server.api("POST", f"secret/data/{name}", {"data": {"value": value}})


def test_current_and_previous_versions_come_from_openbao(openbao: OpenBao) -> None:
    """The newest version is current, the one before it previous, and an absent or emptied secret is typed."""
    name = f"k-{secrets.token_hex(4)}"
    provider = VaultKv2(as_root(openbao))
    with pytest.raises(SecretMissing):
        provider.fetch(name)
    put(openbao, name, "one")
    assert (provider.fetch(name).value.reveal(), provider.fetch(name).version) == ("one", "1")
    with pytest.raises(SecretMissing):
        provider.fetch(name, Stage.PREVIOUS)
    put(openbao, name, "two")
    assert provider.fetch(name).value.reveal() == "two"
    assert provider.fetch(name, Stage.PREVIOUS).value.reveal() == "one"
    openbao.api("POST", f"secret/data/{name}", {"data": {"other": "x"}})
    with pytest.raises(SecretsUnavailable, match="field"):
        provider.fetch(name)


def test_an_expired_token_is_replaced_and_a_living_one_renewed(openbao: OpenBao) -> None:
    """An AppRole's token that has lapsed is replaced by a new login, once; before that it is renewed, not replaced."""
    logins = 0

    def secret_id() -> Secret[str]:
        nonlocal logins
        logins += 1
        return Secret(str(openbao.api("POST", f"auth/{mount}/role/app/secret-id", {})["data"]["secret_id"]))

    mount = f"approle-{secrets.token_hex(3)}"
    openbao.api("POST", f"sys/auth/{mount}", {"type": "approle"})
    openbao.api("PUT", f"sys/policies/acl/{mount}", {"policy": 'path "secret/*" { capabilities = ["read"] }'})
    openbao.api("POST", f"auth/{mount}/role/app", {"token_policies": [mount], "token_ttl": "2s", "token_max_ttl": "1h"})
    role_id = openbao.api("GET", f"auth/{mount}/role/app/role-id")["data"]["role_id"]
    put(openbao, "short", "lived")
    session = VaultSession(url=openbao.url, login=AppRoleLogin(role_id=role_id, secret_id=secret_id, mount=mount))
    provider = VaultKv2(session)
    import time

    assert provider.fetch("short").value.reveal() == "lived"
    time.sleep(1.5)  # past two thirds of its life: the next call renews
    assert provider.fetch("short").value.reveal() == "lived"
    assert logins == 1
    time.sleep(2.5)  # past its whole life: the next call logs in anew
    assert provider.fetch("short").value.reveal() == "lived"
    assert logins == 2


def test_a_revoked_token_is_refused_without_the_token_in_the_message(openbao: OpenBao) -> None:
    """A login that gives a useless token ends in a refusal, which is no silence, that shows neither token nor path contents."""
    session = VaultSession(url=openbao.url, login=TokenLogin(lambda: Secret("s-revoked-token-text")))
    with pytest.raises(SecretRefused) as caught:
        VaultKv2(session).fetch("anything")
    assert "s-revoked-token-text" not in str(caught.value)


def test_a_killed_server_is_survived_within_the_stale_limit() -> None:
    """While OpenBao is down the manager serves what it has and says so; when it is back, it goes on without a restart of the app."""
    sink = Sink()
    with OpenBao() as server:
        put(server, "k", "before")
        policy = RefreshPolicy(ttl=timedelta(milliseconds=30), jitter=0, stale=timedelta(minutes=5), retry=timedelta(milliseconds=10))
        manager = SecretManager(VaultKv2(as_root(server)), sink=sink, policy=policy)
        assert manager.get("k").reveal() == "before"
        server.stop()
        import time

        time.sleep(0.05)
        assert manager.get("k").reveal() == "before"
        assert EventKind.SECRET_STALE in {event.kind for event in sink.events}
        with pytest.raises(SecretsUnavailable):
            manager.get("never-seen")
        server.start()
        put(server, "k", "after")  # the development server forgot everything, the app's token included
        time.sleep(0.05)
        assert manager.get("k").reveal() == "after"
        assert EventKind.SECRET_ROTATED in {event.kind for event in sink.events}
        assert "before" not in repr(sink.events)


@pytest.fixture(scope="module")
def aws() -> Iterator[SecretsManagerClient]:
    """AWS Secrets Manager's API, as moto serves it over loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield boto3.client(
        "secretsmanager",
        endpoint_url=f"http://{host}:{port}",
        region_name="eu-central-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    server.stop()


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("AccessDeniedException", True),
        ("DecryptionFailure", True),
        ("InvalidRequestException", True),
        ("InternalServiceError", False),
        ("ThrottlingException", False),
    ],
)
def test_aws_codes_are_a_decision_or_silence(code: str, *, refused: bool) -> None:
    """No right, a key that is gone and a secret marked for deletion are refusals; what passes is unavailability."""
    client = boto3.client("secretsmanager", region_name="eu-central-1", aws_access_key_id="test", aws_secret_access_key="test")
    with Stubber(client) as stub:
        stub.add_client_error("get_secret_value", service_error_code=code, service_message="secret-detail")
        with pytest.raises(SecretsUnavailable, match=code) as caught:
            AwsSecretsManager(client=client).fetch("k")
    assert isinstance(caught.value, SecretRefused) is refused
    assert "secret-detail" not in str(caught.value)


def test_a_secret_marked_for_deletion_is_refused(aws: SecretsManagerClient) -> None:
    """AWS keeps it readable for nobody, and so do we."""
    aws.create_secret(Name="crm/going", SecretString="one")
    aws.delete_secret(SecretId="crm/going", RecoveryWindowInDays=7)
    with pytest.raises(SecretRefused):
        AwsSecretsManager(prefix="crm/", client=aws).fetch("going")


def test_aws_stages_are_current_and_previous(aws: SecretsManagerClient) -> None:
    """AWSCURRENT and AWSPREVIOUS map to our stages; an absent secret, a binary one and an unreachable region are typed."""
    provider = AwsSecretsManager(prefix="crm/", client=aws)
    with pytest.raises(SecretMissing):
        provider.fetch("k")
    aws.create_secret(Name="crm/k", SecretString="one")
    assert provider.fetch("k").value.reveal() == "one"
    aws.put_secret_value(SecretId="crm/k", SecretString="two")
    assert provider.fetch("k").value.reveal() == "two"
    assert provider.fetch("k", Stage.PREVIOUS).value.reveal() == "one"
    aws.create_secret(Name="crm/b", SecretBinary=b"\x00")
    with pytest.raises(SecretsUnavailable):
        provider.fetch("b")
    dead = boto3.client(
        "secretsmanager",
        endpoint_url="http://127.0.0.1:1",
        region_name="eu-central-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    dead.meta.config.retries = {"max_attempts": 0}  # type: ignore[attr-defined]  # no waiting in a test
    with pytest.raises(SecretsUnavailable):
        AwsSecretsManager(client=dead).fetch("k")
