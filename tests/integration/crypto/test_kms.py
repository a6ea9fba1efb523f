"""Key services as they are: OpenBao Transit killed and back, AWS' API as moto serves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from mypy_boto3_kms import KMSClient

from axis_security.core.events import NullSink
from axis_security.core.ids import TenantId
from axis_security.core.secret import Secret
from axis_security.crypto.errors import KmsUnavailable
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
