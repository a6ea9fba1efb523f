"""Sealed objects: write as a stream, published only when whole; read at any place. Where the bytes lie is a back end's business.

Each object is bound to tenant, bucket, key and version: bytes copied to another place do not open there. The tenant is the acting principal's.
"""

from __future__ import annotations

import io
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol
from urllib.parse import quote

from axis_security.core.context import maybe_principal
from axis_security.core.errors import AxisError, ConfigError, Unavailable
from axis_security.core.ids import TenantId
from axis_security.crypto.errors import TenantRequired
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.stream import HEADER_BYTES, ObjectName, ObjectSeal, SealedReader, SealedWriter, Sink, object_key_id, open_all

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Files", "ObjectBackend", "ObjectMissing", "ObjectReader", "SealedObjects", "StorageUnavailable", "Upload"]

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_MAX_KEY_BYTES: Final = 700
"""Longest key: S3 takes 1,024 bytes, and ours has the tenant before it."""


class ObjectMissing(AxisError):
    """There is no such object for this tenant."""

    code = "crypto.object_missing"
    http_status = 404
    public_text = "The request names something that does not exist."

    def __init__(self, *, name: str) -> None:
        super().__init__(
            what=f"no object `{name}`",
            why="the tenant has none under this key and version, or it was never published",
            fix="check bucket, key, version and the acting tenant",
            facts={"name": name},
        )


class StorageUnavailable(Unavailable):
    """The place where objects lie did not do what was asked."""

    code = "crypto.storage_unavailable"

    def __init__(self, *, name: str, why: str) -> None:
        super().__init__(
            what=f"the object storage failed on `{name}`",
            why=why,
            fix="check the storage and this service's rights there",
            facts={"name": name},
        )


class Upload(Protocol):
    """An object that is being written and that nobody can see yet."""

    def write(self, data: Buffer, /) -> int:
        """Take all of *data*."""
        ...

    def publish(self) -> None:
        """Make it visible, whole, in one step; an older one of the same path is replaced."""
        ...

    def discard(self) -> None:
        """Leave no trace of it."""
        ...


class ObjectBackend(Protocol):
    """Keeps sealed bytes under paths. Raises StorageUnavailable where it cannot."""

    def create(self, path: str) -> Upload:
        """Begin an object."""
        ...

    def open(self, path: str) -> BinaryIO:
        """The bytes of an object, seekable, as they are now.

        Raises:
            ObjectMissing: there is none.
        """
        ...

    def delete(self, path: str) -> bool:
        """Remove an object; whether there was one, as far as the storage says."""
        ...


class ObjectReader(io.BufferedReader):
    """Reads an object in order or at any place. Close it, or use it as a context manager."""

    def __init__(self, source: BinaryIO, seal: ObjectSeal) -> None:
        self._sealed: Final = SealedReader(source, seal)
        self._source: Final = source
        super().__init__(self._sealed, 16_384)

    @property
    def size(self) -> int:
        """Plaintext bytes, authenticated."""
        return self._sealed.size

    @property
    def etag(self) -> str:
        """See :attr:`SealedReader.etag <axis_security.crypto.stream.SealedReader.etag>`."""
        return self._sealed.etag

    def read_range(self, start: int, stop: int) -> bytes:
        """Plaintext bytes *start* to *stop* (exclusive), as a slice would give them; the place of :meth:`read` stays."""
        return self._sealed.read_range(start, stop)

    def close(self) -> None:
        """Close the storage's handle too."""
        super().close()
        self._source.close()


class SealedObjects:
    """One bucket of sealed objects, for all tenants.

    Args:
        ring: whose keys seal.
        backend: where the bytes lie: :class:`Files`, or one of :mod:`~axis_security.crypto.remote`.
        bucket: part of each object's context; a plain lower-case name.

    Raises:
        ConfigError: an unusable bucket name.
    """

    def __init__(self, ring: KeyRing, backend: ObjectBackend, *, bucket: str) -> None:
        if _BUCKET.fullmatch(bucket) is None:
            raise ConfigError(
                what=f"unusable bucket name `{bucket}`", why="it must be a plain lower-case name", fix="use a name such as files"
            )
        self._ring, self._backend, self._bucket = ring, backend, bucket

    @contextmanager
    def open_write(self, key: str, *, version: str = "", tenant: TenantId | None = None) -> Iterator[SealedWriter]:
        """Write an object. It is published when the block ends without an exception, and otherwise never was.

        Raises:
            ConfigError: an unusable key.
            TenantRequired: nobody is acting, and no *tenant* was named.
            KeyMissing, KeyShredded, KmsUnavailable, LedgerUnavailable: there is no key to seal with.
            StorageUnavailable: the storage failed; nothing was published.
        """
        name, path = self._name(key, version, tenant)
        seal = self._ring.object(name)
        upload = self._backend.create(path)
        try:
            with SealedWriter(upload, seal) as writer:
                yield writer
            upload.publish()
        except BaseException:
            upload.discard()
            raise

    def open_read(self, key: str, *, version: str = "", tenant: TenantId | None = None) -> ObjectReader:
        """Open an object for reading at any place; its end is authenticated before its size is believed.

        Raises:
            ObjectMissing: there is none.
            SealError: it was changed, cut, moved here from elsewhere, or its key is gone.
            ConfigError, TenantRequired, KmsUnavailable, LedgerUnavailable, StorageUnavailable: as :meth:`open_write`.
        """
        name, path = self._name(key, version, tenant)
        source = self._source(name, path)
        try:
            return ObjectReader(source, self._seal(source, name))
        except BaseException:
            source.close()
            raise

    def copy_to(self, sink: Sink, key: str, *, version: str = "", tenant: TenantId | None = None) -> int:
        """Write the whole plaintext into *sink* at full speed; returns its length. *sink* holds a beginning until this returns. Raises as
        :meth:`open_read`.
        """
        name, path = self._name(key, version, tenant)
        with self._source(name, path) as source:
            return open_all(source, sink, self._seal(source, name))

    def delete(self, key: str, *, version: str = "", tenant: TenantId | None = None) -> bool:
        """Remove an object; whether there was one, as far as the storage says. Raises as :meth:`open_write`."""
        return self._backend.delete(self._name(key, version, tenant)[1])

    def _source(self, name: ObjectName, path: str) -> BinaryIO:
        try:
            return self._backend.open(path)
        except ObjectMissing:
            raise ObjectMissing(name=name.label) from None

    def _seal(self, source: BinaryIO, name: ObjectName) -> ObjectSeal:
        key_id = object_key_id(source.read(HEADER_BYTES), name=name.label)
        source.seek(0)
        return self._ring.object(name, key_id=key_id)

    def _name(self, key: str, version: str, tenant: TenantId | None) -> tuple[ObjectName, str]:
        if tenant is None:
            principal = maybe_principal()
            if principal is None:
                raise TenantRequired(name=f"{self._bucket}/{key}")
            tenant = principal.tenant
        parts = key.split("/")
        usable = key.isprintable() and "\\" not in key and len(key.encode("utf-8", "replace")) <= _MAX_KEY_BYTES
        if not usable or any(part in {"", ".", ".."} for part in parts) or len(version) > 128 or not version.isprintable():
            raise ConfigError(
                what="unusable object key or version",
                why=f"a key is printable, has at most {_MAX_KEY_BYTES} bytes, no backslash, and no empty, `.` or `..` part; a version is printable, "
                "of at most 128 characters",
                fix="make keys yourself, such as invoices/2026/<uuid>.pdf; keep a user's file name in the database",
            )
        # The prefixes keep a tenant or version called ".." a plain name, and each at its own depth.
        path = f"{self._bucket}/t={quote(tenant.text, safe='')}/v={quote(version, safe='')}/{key}"
        return ObjectName(tenant=tenant.text, bucket=self._bucket, key=key, version=version), path


class Files:
    """Objects as files below *root*, each written beside its place and moved there when whole."""

    def __init__(self, root: Path) -> None:
        self._root: Final = root.resolve()

    def create(self, path: str) -> Upload:
        """See :class:`ObjectBackend`."""
        try:
            return _FileUpload(self._root / path)
        except OSError as error:
            raise StorageUnavailable(name=path, why=error.strerror or "it cannot be written") from None

    def open(self, path: str) -> BinaryIO:
        """See :class:`ObjectBackend`."""
        try:
            return (self._root / path).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissing(name=path) from None
        except OSError as error:
            raise StorageUnavailable(name=path, why=error.strerror or "it cannot be read") from None

    def delete(self, path: str) -> bool:
        """See :class:`ObjectBackend`."""
        try:
            (self._root / path).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StorageUnavailable(name=path, why=error.strerror or "it cannot be removed") from None
        return True


class _FileUpload:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        # Hidden, and shorter than any limit on names, whatever the object is called.
        self._temporary = path.parent / f".{secrets.token_hex(16)}.part"
        self._file = os.fdopen(os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += self._file.write(view[done:])
        except OSError as error:
            raise StorageUnavailable(name=self._path.name, why=error.strerror or "it cannot be written") from None
        return done

    def publish(self) -> None:
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StorageUnavailable(name=self._path.name, why=error.strerror or "it cannot be published") from None

    def discard(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)
