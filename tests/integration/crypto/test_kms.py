"""Key services as they are: OpenBao Transit killed and back, AWS' API as moto serves it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber
from moto.server import ThreadedMotoServer
from mypy_boto3_kms import KMSClient

from axis_security.core.events import NullSink
from axis_security.core.ids import TenantId
from axis_security.core.secret import Secret
from axis_security.crypto.errors import KmsRefused, KmsUnavailable
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.keys import KeyService
from axis_security.crypto.kms.aws import AwsKms
from axis_security.crypto.kms.transit import TransitKms
from axis_security.crypto.ledger import FileShredLedger
from axis_security.crypto.vault_session import TokenLogin, VaultSession
from axis_security.testing.crypto import MemoryKeyStore
from axis_security.testing.servers import OpenBao

ACME = TenantId("acme")


def transit(server: OpenBao, key: str = "axis") -> TransitKms:
    """The Transit engine of *server*, as root."""
    return TransitKms(VaultSession(url=server.url, login=TokenLogin(lambda: Secret(server.root_token))), key=key)


def holds(service: KeyService) -> None:
    """What every key service must do: give back what it wrapped, for the same context and no other, and refuse damage."""
    key = Secret(bytes(range(32)))
    wrapped = service.wrap(key, {"tenant": "acme", "key_id": "1"})
    assert key.reveal() not in wrapped
    assert service.unwrap(wrapped, {"tenant": "acme", "key_id": "1"}) == key
    for damage, context in (
        (wrapped, {"tenant": "globex", "key_id": "1"}),
        (wrapped[:-4] + b"AAA=", {"tenant": "acme", "key_id": "1"}),
        (b"x", {"tenant": "acme", "key_id": "1"}),
    ):
        with pytest.raises(KmsUnavailable):
            service.unwrap(damage, context)


def test_openbao_transit_holds_and_survives_its_own_rotation(openbao: OpenBao) -> None:
    """Bound to its context; after rotating the Transit key, what was wrapped before still opens; an absent key is refused."""
    openbao.api("POST", "sys/mounts/transit", {"type": "transit"})
    openbao.api("POST", "transit/keys/axis", {"type": "aes256-gcm96"})
    service = transit(openbao)
    holds(service)
    wrapped = service.wrap(Secret(bytes(32)), {"a": "b"})
    openbao.api("POST", "transit/keys/axis/rotate", {})
    assert service.unwrap(wrapped, {"a": "b"}).reveal() == bytes(32)
    with pytest.raises(KmsUnavailable):
        transit(openbao, "absent").unwrap(wrapped, {"a": "b"})


def test_a_killed_openbao_is_survived_by_a_warm_ring(tmp_path: Path) -> None:
    """With the server gone, a warm ring seals and opens, a cold one refuses with a typed error."""
    with OpenBao() as server:
        server.api("POST", "sys/mounts/transit", {"type": "transit"})
        server.api("POST", "transit/keys/axis", {"type": "aes256-gcm96"})
        store, ledger = MemoryKeyStore(), FileShredLedger(tmp_path / "ledger", create=True)
        warm = KeyRing(store=store, service=transit(server), ledger=ledger, sink=NullSink())
        warm.create(ACME)
        sealed = warm.seal(b"x", tenant=ACME, field="f")
        server.stop()
        assert warm.open(sealed, tenant=ACME, field="f") == b"x"
        cold = KeyRing(store=store, service=transit(server), ledger=ledger, sink=NullSink())
        with pytest.raises(KmsUnavailable):
            cold.open(sealed, tenant=ACME, field="f")


def test_a_hanging_openbao_costs_its_timeout_and_comes_back(tmp_path: Path) -> None:
    """A server that takes connections and never answers is a bounded wait and a typed error; when it wakes, the same ring goes on."""
    with OpenBao() as server:
        server.api("POST", "sys/mounts/transit", {"type": "transit"})
        server.api("POST", "transit/keys/axis", {"type": "aes256-gcm96"})
        session = VaultSession(url=server.url, login=TokenLogin(lambda: Secret(server.root_token)), timeout_seconds=1)
        service = TransitKms(session, key="axis")
        store, ledger = MemoryKeyStore(), FileShredLedger(tmp_path / "ledger", create=True)
        sealed = KeyRing(store=store, service=service, ledger=ledger, sink=NullSink())
        sealed.create(ACME)
        value = sealed.seal(b"x", tenant=ACME, field="f")
        cold = KeyRing(store=store, service=service, ledger=ledger, sink=NullSink())
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(KmsUnavailable) as caught:
                cold.open(value, tenant=ACME, field="f")
            assert not isinstance(caught.value, KmsRefused), "silence is no decision"
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert cold.open(value, tenant=ACME, field="f") == b"x"


def test_a_withdrawn_right_is_a_refusal(openbao: OpenBao) -> None:
    """A token whose policy no longer allows the key, and a key that was deleted: refused, not unavailable."""
    openbao.api("POST", "sys/mounts/withdrawn", {"type": "transit"})
    openbao.api("POST", "withdrawn/keys/axis", {"type": "aes256-gcm96"})
    rule = 'path "withdrawn/+/axis" { capabilities = ["update"] }'
    openbao.api("PUT", "sys/policies/acl/withdrawn", {"policy": rule})
    token = openbao.api("POST", "auth/token/create", {"policies": ["withdrawn"]})["auth"]["client_token"]
    session = VaultSession(url=openbao.url, login=TokenLogin(lambda: Secret(token)))
    service = TransitKms(session, key="axis", mount="withdrawn")
    wrapped = service.wrap(Secret(bytes(32)), {"a": "b"})
    assert service.unwrap(wrapped, {"a": "b"}).reveal() == bytes(32)
    openbao.api("PUT", "sys/policies/acl/withdrawn", {"policy": rule.replace('"update"', '"deny"')})
    with pytest.raises(KmsRefused, match="Forbidden"):
        service.unwrap(wrapped, {"a": "b"})
    openbao.api("PUT", "sys/policies/acl/withdrawn", {"policy": rule})
    openbao.api("POST", "withdrawn/keys/axis/config", {"deletion_allowed": True})
    openbao.api("DELETE", "withdrawn/keys/axis")
    with pytest.raises(KmsRefused):
        service.unwrap(wrapped, {"a": "b"})


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("DisabledException", True),
        ("KMSInvalidStateException", True),
        ("AccessDeniedException", True),
        ("ThrottlingException", False),
        ("KMSInternalException", False),
        ("DependencyTimeoutException", False),
    ],
)
def test_aws_codes_are_a_decision_or_silence(code: str, *, refused: bool) -> None:
    """Disabled, pending deletion and no right are refusals; what passes is unavailability. The emulator lets disabled keys decrypt, so the answers are given."""
    client = boto3.client("kms", region_name="eu-central-1", aws_access_key_id="test", aws_secret_access_key="test")
    with Stubber(client) as stub:
        stub.add_client_error("decrypt", service_error_code=code, service_message="secret-detail")
        with pytest.raises(KmsUnavailable, match=code) as caught:
            AwsKms("alias/axis", client=client).unwrap(b"x", {})
    assert isinstance(caught.value, KmsRefused) is refused
    assert "secret-detail" not in str(caught.value)


@pytest.fixture(scope="module")
def aws() -> Iterator[KMSClient]:
    """AWS KMS' API, as moto serves it over loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield boto3.client(
        "kms", endpoint_url=f"http://{host}:{port}", region_name="eu-central-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    server.stop()


def test_aws_kms_holds(aws: KMSClient) -> None:
    """Bound to its encryption context; an unknown key is refused with AWS' own code."""
    key = aws.create_key()["KeyMetadata"]["KeyId"]
    holds(AwsKms(key, client=aws))
    with pytest.raises(KmsUnavailable, match="NotFoundException"):
        AwsKms("00000000-0000-0000-0000-000000000000", client=aws).wrap(Secret(bytes(32)), {})
