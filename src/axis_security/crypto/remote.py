"""Where sealed objects lie elsewhere: S3 through boto3 (extra ``aws``), and whatever fsspec reaches (extra ``fsspec``)."""

from __future__ import annotations

import contextlib
import io
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar, cast

from axis_security.core.errors import MissingExtra
from axis_security.crypto.objects import ObjectMissing, StorageUnavailable, Upload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from typing_extensions import Buffer

__all__ = ["S3", "Fsspec"]

T = TypeVar("T")

_PART: Final = 8 * 2**20
"""Bytes of one part of an upload; S3 wants at least 5 MiB and at most 10,000 parts, so objects end at 80 GiB."""
_NEAR: Final = 64 * 1024
_AHEAD: Final = 2**20


class S3:
    """Objects in an S3 bucket. An upload becomes visible when it is completed; until then it is parts that nobody can read.

    Give the bucket a lifecycle rule that aborts incomplete uploads: a process that is killed can't.

    Args:
        bucket: the storage's bucket; the seal's own is another name.
        prefix: before every path, such as ``sealed/``.
        client: a boto3 ``s3`` client; made from the ambient configuration if ``None``.

    Raises:
        MissingExtra: boto3 is not installed.
    """

    def __init__(self, bucket: str, *, prefix: str = "", client: S3Client | None = None) -> None:
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise MissingExtra(package="boto3", extra="aws") from None
        self._bucket, self._prefix = bucket, prefix
        self._client: Any = client if client is not None else boto3.client("s3")
        self._client_error, self._core_error = ClientError, BotoCoreError

    def create(self, path: str) -> Upload:
        """See :class:`ObjectBackend <axis_security.crypto.objects.ObjectBackend>`."""
        return _S3Upload(self._call, path)

    def open(self, path: str) -> BinaryIO:
        """See :class:`ObjectBackend <axis_security.crypto.objects.ObjectBackend>`. Every read asks for the writing that was opened."""
        head = self._call("head_object", path)
        source = _S3Source(lambda start, stop: self._get(path, head["ETag"], start, stop), size=int(head["ContentLength"]))
        return cast("BinaryIO", io.BufferedReader(source, _NEAR))

    def delete(self, path: str) -> bool:
        """See :class:`ObjectBackend <axis_security.crypto.objects.ObjectBackend>`."""
        try:
            self._call("head_object", path)
        except ObjectMissing:
            return False
        self._call("delete_object", path)
        return True

    def _get(self, path: str, tag: str, start: int, stop: int) -> bytes:
        answer = self._call("get_object", path, IfMatch=tag, Range=f"bytes={start}-{stop - 1}")
        try:
            return bytes(answer["Body"].read())
        except (self._core_error, OSError) as error:
            raise StorageUnavailable(name=path, why=type(error).__name__) from None

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            return getattr(self._client, method)(Bucket=self._bucket, Key=self._prefix + path, **arguments)
        except self._client_error as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in {"404", "NoSuchKey", "NotFound"}:
                raise ObjectMissing(name=path) from None
            raise StorageUnavailable(name=path, why=code) from None
        except self._core_error as error:
            raise StorageUnavailable(name=path, why=type(error).__name__) from None


class _S3Upload:
    def __init__(self, call: Callable[..., Any], path: str) -> None:
        self._call, self._path = call, path
        self._held = bytearray()
        self._id: str | None = None
        self._parts: list[dict[str, object]] = []

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B")
        self._held += view
        while len(self._held) >= _PART:
            self._send(bytes(self._held[:_PART]))
            del self._held[:_PART]
        return len(view)

    def publish(self) -> None:
        if self._id is None:
            self._call("put_object", self._path, Body=bytes(self._held))
            return
        if self._held:
            self._send(bytes(self._held))
        self._call("complete_multipart_upload", self._path, UploadId=self._id, MultipartUpload={"Parts": self._parts})

    def discard(self) -> None:
        if self._id is not None:
            # What made the writer give up is the error that counts; a lifecycle rule removes what stays.
            with contextlib.suppress(StorageUnavailable, ObjectMissing):
                self._call("abort_multipart_upload", self._path, UploadId=self._id)

    def _send(self, part: bytes) -> None:
        if self._id is None:
            self._id = str(self._call("create_multipart_upload", self._path)["UploadId"])
        number = len(self._parts) + 1
        answer = self._call("upload_part", self._path, UploadId=self._id, PartNumber=number, Body=part)
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})


class _S3Source(io.RawIOBase):
    """An object's bytes by ranged requests: little around a place that was jumped to, much where reading goes on."""

    def __init__(self, get: Callable[[int, int], bytes], *, size: int) -> None:
        super().__init__()
        self._get, self._size = get, size
        self._place = self._start = 0
        self._held = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._place = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence] + offset
        return self._place

    def readinto(self, target: Buffer, /) -> int:
        view = memoryview(target).cast("B")
        if self._place >= self._size or not len(view):
            return 0
        offset = self._place - self._start
        if not 0 <= offset < len(self._held):
            goes_on = bool(self._held) and offset == len(self._held)
            stop = min(self._place + max(_AHEAD if goes_on else _NEAR, len(view)), self._size)
            self._held, self._start, offset = self._get(self._place, stop), self._place, 0
        piece = self._held[offset : offset + len(view)]
        view[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)


class Fsspec:
    """Objects in any file system that fsspec reaches, written under another name and moved when whole.

    How atomic the move is, is the file system's to say: on most object stores it is a copy.

    Args:
        filesystem: an ``fsspec.AbstractFileSystem``.
        root: the folder.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs, self._root = filesystem, root.rstrip("/")

    def create(self, path: str) -> Upload:
        """See :class:`ObjectBackend <axis_security.crypto.objects.ObjectBackend>`."""
        return self._do(path, lambda: _FsspecUpload(self, f"{self._root}/{path}"))

    def open(self, path: str) -> BinaryIO:
        """See :class:`ObjectBackend <axis_security.crypto.objects.ObjectBackend>`."""
        return cast("BinaryIO", self._do(path, lambda: self._fs.open(f"{self._root}/{path}", "rb")))

    def delete(self, path: str) -> bool:
        """See :class:`ObjectBackend <axis_security.crypto.objects.ObjectBackend>`."""
        try:
            self._do(path, lambda: self._fs.rm_file(f"{self._root}/{path}"))
        except ObjectMissing:
            return False
        return True

    def _do(self, path: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ObjectMissing(name=path) from None
        except OSError as error:
            raise StorageUnavailable(name=path, why=type(error).__name__) from None


class _FsspecUpload:
    def __init__(self, owner: Fsspec, path: str) -> None:
        self._owner, self._path = owner, path
        folder = path.rpartition("/")[0]
        self._temporary = f"{folder}/.{secrets.token_hex(16)}.part"
        owner._fs.makedirs(folder, exist_ok=True)  # noqa: SLF001  # one back end in two classes
        self._file = owner._fs.open(self._temporary, "wb")  # noqa: SLF001  # one back end in two classes

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B")
        # Some file systems keep what they are given; the writer uses its buffer again.
        self._owner._do(self._path, lambda: self._file.write(bytes(view)))  # noqa: SLF001  # one back end in two classes
        return len(view)

    def publish(self) -> None:
        def work() -> None:
            self._file.close()
            self._owner._fs.mv(self._temporary, self._path)  # noqa: SLF001  # one back end in two classes

        self._owner._do(self._path, work)  # noqa: SLF001  # one back end in two classes

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._owner._fs.rm_file(self._temporary)  # noqa: SLF001  # one back end in two classes
