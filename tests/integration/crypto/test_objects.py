"""Sealed objects in files, in fsspec's memory and behind S3's API: one set of promises for all three."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from axis_security.core.context import acting_as
from axis_security.core.errors import ConfigError
from axis_security.core.events import NullSink
from axis_security.core.ids import TenantId
from axis_security.core.principal import Principal
from axis_security.crypto.errors import KeyShredded, SealError, Tampered, TenantRequired, Truncated, WrongContext
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.ledger import FileShredLedger
from axis_security.crypto.objects import Files, ObjectBackend, ObjectMissing, SealedObjects, StorageUnavailable
from axis_security.crypto.ranges import answer_range
from axis_security.crypto.remote import S3, Fsspec
from axis_security.crypto.stream import CHUNK
from axis_security.testing.crypto import FakeKms, MemoryKeyStore

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
DATA = os.urandom(9 * 2**20 + 12_345)


class Place:
    """A back end, and the raw bytes behind it: what somebody with the storage's password could do."""

    def __init__(
        self, backend: ObjectBackend, read: Callable[[str], bytes], write: Callable[[str, bytes], object], names: Callable[[], list[str]]
    ) -> None:
        self.backend, self.read, self.write, self.names = backend, read, write, names


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """S3's API, as moto serves it over loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.create_bucket(Bucket="store")
    yield client
    client.close()
    server.stop()


@pytest.fixture(params=["files", "fsspec", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3: Any) -> Iterator[Place]:
    """Each back end in turn, empty."""
    if request.param == "files":
        root = tmp_path / "objects"

        def write(path: str, data: bytes) -> None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)

        yield Place(
            Files(root),
            lambda path: (root / path).read_bytes(),
            write,
            lambda: sorted(str(file.relative_to(root.resolve())) for file in root.resolve().rglob("*") if file.is_file()),
        )
    elif request.param == "fsspec":
        memory = import_module("fsspec").filesystem("memory")
        if memory.exists("/objects"):
            memory.rm("/objects", recursive=True)
        yield Place(
            Fsspec(memory, "/objects"),
            lambda path: bytes(memory.cat_file(f"/objects/{path}")),
            lambda path, data: memory.pipe_file(f"/objects/{path}", data),
            lambda: sorted(name.removeprefix("/objects/") for name in memory.find("/objects")),
        )
    else:
        for item in s3.list_objects_v2(Bucket="store").get("Contents", []):
            s3.delete_object(Bucket="store", Key=item["Key"])
        yield Place(
            S3("store", client=s3),
            lambda path: bytes(s3.get_object(Bucket="store", Key=path)["Body"].read()),
            lambda path, data: s3.put_object(Bucket="store", Key=path, Body=data),
            lambda: sorted(item["Key"] for item in s3.list_objects_v2(Bucket="store").get("Contents", [])),
        )
        assert s3.list_multipart_uploads(Bucket="store").get("Uploads", []) == [], "an upload was left open"


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """Keys for two tenants."""
    made = KeyRing(store=MemoryKeyStore(), service=FakeKms(), ledger=FileShredLedger(tmp_path / "ledger", create=True), sink=NullSink())
    made.create(ACME)
    made.create(GLOBEX)
    return made


@pytest.fixture
def objects(place: Place, ring: KeyRing) -> SealedObjects:
    """A bucket in that place."""
    return SealedObjects(ring, place.backend, bucket="files")


def put(objects: SealedObjects, key: str, data: bytes, **where: Any) -> None:
    """Write an object."""
    with objects.open_write(key, **where) as writer:
        for start in range(0, len(data), 1_000_003):
            writer.write(data[start : start + 1_000_003])


PATH = "files/t=acme/v=/movies/1.mp4"


def test_what_was_written_is_read_whole_and_anywhere(objects: SealedObjects, place: Place) -> None:
    """In order, at any place, by ranges and by HTTP; the storage holds nothing readable."""
    put(objects, "movies/1.mp4", DATA, tenant=ACME)
    assert place.names() == [PATH]
    assert DATA[5_000:5_100] not in place.read(PATH)
    sink = io.BytesIO()
    assert objects.copy_to(sink, "movies/1.mp4", tenant=ACME) == len(DATA)
    assert sink.getvalue() == DATA
    with objects.open_read("movies/1.mp4", tenant=ACME) as reader:
        assert reader.size == len(DATA)
        assert reader.read() == DATA
        for at in (0, CHUNK - 10, 5_000_000, len(DATA) - 7):
            reader.seek(at)
            assert reader.read(100) == DATA[at : at + 100]
            assert reader.read_range(at, at + 40_000) == DATA[at : at + 40_000]
        reader.seek(-5, io.SEEK_END)
        assert reader.read() == DATA[-5:]
        answer = answer_range(reader, header="bytes=8000000-8300000")
        assert (answer.status, b"".join(answer.body)) == (206, DATA[8_000_000:8_300_001])


def test_nothing_is_published_before_the_end(objects: SealedObjects, place: Place) -> None:
    """Nobody sees an object that is being written, and one that failed midway leaves no trace; an older one stays as it was."""
    with pytest.raises(ZeroDivisionError), objects.open_write("movies/1.mp4", tenant=ACME) as writer:
        writer.write(DATA)
        with pytest.raises(ObjectMissing):
            objects.open_read("movies/1.mp4", tenant=ACME)
        raise ZeroDivisionError
    assert place.names() == []
    put(objects, "movies/1.mp4", b"old", tenant=ACME)
    with pytest.raises(ZeroDivisionError), objects.open_write("movies/1.mp4", tenant=ACME) as writer:
        writer.write(DATA)
        raise ZeroDivisionError
    with objects.open_read("movies/1.mp4", tenant=ACME) as reader:
        assert reader.read() == b"old"


def test_bytes_moved_or_changed_in_the_storage_are_refused(objects: SealedObjects, place: Place) -> None:
    """Under another tenant, key or version, cut at a chunk's border, or changed anywhere: each by its own error."""
    put(objects, "movies/1.mp4", DATA, tenant=ACME)
    sealed = place.read(PATH)
    for moved, where in (
        ("files/t=globex/v=/movies/1.mp4", {"key": "movies/1.mp4", "tenant": GLOBEX}),
        ("files/t=acme/v=/movies/2.mp4", {"key": "movies/2.mp4", "tenant": ACME}),
        ("files/t=acme/v=v2/movies/1.mp4", {"key": "movies/1.mp4", "tenant": ACME, "version": "v2"}),
    ):
        place.write(moved, sealed)
        arguments: dict[str, Any] = dict(where)
        with pytest.raises(WrongContext):
            objects.open_read(**arguments)
    place.write(PATH, sealed[: 64 + 100 * (CHUNK + 16)])
    for read in (
        lambda: objects.open_read("movies/1.mp4", tenant=ACME),
        lambda: objects.copy_to(io.BytesIO(), "movies/1.mp4", tenant=ACME),
    ):
        with pytest.raises(Truncated):
            read()
    changed = bytearray(sealed)
    changed[64 + 300 * (CHUNK + 16) + 5] ^= 1
    place.write(PATH, bytes(changed))
    with objects.open_read("movies/1.mp4", tenant=ACME) as reader:
        assert reader.read_range(0, 1000) == DATA[:1000], "what was not changed can still be read"
        with pytest.raises(Tampered):
            reader.read_range(300 * CHUNK, 300 * CHUNK + 1)
    with pytest.raises(Tampered):
        objects.copy_to(io.BytesIO(), "movies/1.mp4", tenant=ACME)


def test_the_tenant_is_the_acting_one(objects: SealedObjects) -> None:
    """Without anybody acting nothing is written or read; another tenant finds nothing."""
    with pytest.raises(TenantRequired), objects.open_write("a"):
        pass
    with acting_as(Principal(tenant=ACME, role="member")):
        put(objects, "a", b"x")
        with objects.open_read("a") as reader:
            assert reader.read() == b"x"
    with acting_as(Principal(tenant=GLOBEX, role="member")), pytest.raises(ObjectMissing, match="files/a"):
        objects.open_read("a")


def test_deleting_and_shredding(objects: SealedObjects, ring: KeyRing) -> None:
    """A deleted object is missing; one whose tenant was shredded is gone for good though its bytes are there."""
    put(objects, "a", b"x", tenant=ACME)
    put(objects, "b", b"x", tenant=ACME)
    assert [objects.delete("a", tenant=ACME), objects.delete("a", tenant=ACME)] == [True, False]
    with pytest.raises(ObjectMissing):
        objects.open_read("a", tenant=ACME)
    ring.shred(ACME, reason="DSR-17")
    with pytest.raises(KeyShredded):
        objects.open_read("b", tenant=ACME)


def test_after_a_rotation_old_objects_open(objects: SealedObjects, ring: KeyRing) -> None:
    """Each object opens under the key that its header names."""
    put(objects, "a", b"old", tenant=ACME)
    ring.rotate(ACME)
    put(objects, "b", b"new", tenant=ACME)
    for key, expected in (("a", b"old"), ("b", b"new")):
        with objects.open_read(key, tenant=ACME) as reader:
            assert reader.read() == expected


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/./b", "a\\b", "a\x00b", "a\nb", "k" * 800, "a/"])
def test_keys_that_lead_elsewhere_are_refused(key: str, ring: KeyRing, tmp_path: Path) -> None:
    """No key leaves its tenant's folder, and no tenant's or version's name does."""
    objects = SealedObjects(ring, Files(tmp_path / "o"), bucket="files")
    with pytest.raises(ConfigError), objects.open_write(key, tenant=ACME):
        pass
    ring.create(TenantId(".."))
    put(objects, "a", b"x", tenant=TenantId(".."), version="../../..")
    assert [str(file.relative_to(tmp_path)) for file in (tmp_path / "o").rglob("a")] == ["o/files/t=../v=..%2F..%2F../a"]


@pytest.mark.parametrize("version", ["v" * 129, "\ud800", "a\nb"])
def test_versions_that_have_no_name_are_refused(version: str, ring: KeyRing, tmp_path: Path) -> None:
    """Half a surrogate pair, a line's end, or more than any storage takes: told as such, before anything is written or encoded."""
    objects = SealedObjects(ring, Files(tmp_path / "o"), bucket="files")
    with pytest.raises(ConfigError, match="version"), objects.open_write("a", tenant=ACME, version=version):
        pass
    put(objects, "a", b"x", tenant=ACME, version="v" * 128)
    assert not objects.delete("a/b", tenant=ACME, version="v" * 128), "a folder that is a file holds nothing"


def test_a_storage_that_fails_is_named(ring: KeyRing, tmp_path: Path, s3: Any) -> None:
    """No space, no bucket: a typed error without the driver's own text, and nothing published."""
    with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
        put(SealedObjects(ring, S3("absent", client=s3), bucket="files"), "a", b"x", tenant=ACME)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageUnavailable):
        put(SealedObjects(ring, Files(tmp_path / "file"), bucket="files"), "a", b"x", tenant=ACME)
    with pytest.raises(ConfigError):
        SealedObjects(ring, Files(tmp_path), bucket="../x")


def test_an_object_replaced_while_it_is_read_never_mixes(ring: KeyRing, s3: Any) -> None:
    """A reader of S3 keeps to the writing that it opened; a newer one is an error, not a mixture."""
    objects = SealedObjects(ring, S3("store", client=s3), bucket="swap")
    put(objects, "a", DATA, tenant=ACME)
    with objects.open_read("a", tenant=ACME) as reader:
        put(objects, "a", DATA[::-1], tenant=ACME)
        with pytest.raises((StorageUnavailable, SealError)):
            reader.read_range(4_000_000, 4_000_100)
