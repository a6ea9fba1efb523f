"""AES-256 at rest: fields and objects sealed for a tenant, keys that rotate and shred, lookup without decrypting. The names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axis_security.core.lazy import front_door

if TYPE_CHECKING:
    from axis_security.crypto.attribute import ValueTaken as ValueTaken
    from axis_security.crypto.attribute import sealed as sealed
    from axis_security.crypto.blindindex import BlindIndex as BlindIndex
    from axis_security.crypto.blindindex import IndexKeys as IndexKeys
    from axis_security.crypto.cache import CachePolicy as CachePolicy
    from axis_security.crypto.columns import EncryptedBytes as EncryptedBytes
    from axis_security.crypto.columns import EncryptedJSON as EncryptedJSON
    from axis_security.crypto.columns import EncryptedText as EncryptedText
    from axis_security.crypto.columns import NotSearchable as NotSearchable
    from axis_security.crypto.columns import harden as harden
    from axis_security.crypto.columns import use_keys as use_keys
    from axis_security.crypto.errors import KeyMissing as KeyMissing
    from axis_security.crypto.errors import KeyShredded as KeyShredded
    from axis_security.crypto.errors import KmsRefused as KmsRefused
    from axis_security.crypto.errors import KmsUnavailable as KmsUnavailable
    from axis_security.crypto.errors import LedgerUnavailable as LedgerUnavailable
    from axis_security.crypto.errors import SealError as SealError
    from axis_security.crypto.errors import Tampered as Tampered
    from axis_security.crypto.errors import TenantRequired as TenantRequired
    from axis_security.crypto.errors import Truncated as Truncated
    from axis_security.crypto.errors import UnknownFormat as UnknownFormat
    from axis_security.crypto.errors import WrongContext as WrongContext
    from axis_security.crypto.keyring import KeyRing as KeyRing
    from axis_security.crypto.keyring import RotationPolicy as RotationPolicy
    from axis_security.crypto.keystore import KEYSTORE_PART as KEYSTORE_PART
    from axis_security.crypto.keystore import PostgresKeyStore as PostgresKeyStore
    from axis_security.crypto.kms.aws import AwsKms as AwsKms
    from axis_security.crypto.kms.local import LocalFileKms as LocalFileKms
    from axis_security.crypto.kms.transit import TransitKms as TransitKms
    from axis_security.crypto.ledger import FileShredLedger as FileShredLedger
    from axis_security.crypto.objects import Files as Files
    from axis_security.crypto.objects import ObjectMissing as ObjectMissing
    from axis_security.crypto.objects import SealedObjects as SealedObjects
    from axis_security.crypto.objects import StorageUnavailable as StorageUnavailable
    from axis_security.crypto.sealer import RingSealer as RingSealer
    from axis_security.crypto.upkeep import KeyUpkeep as KeyUpkeep

_HOME: Final = {
    "AwsKms": "axis_security.crypto.kms.aws",
    "BlindIndex": "axis_security.crypto.blindindex",
    "CachePolicy": "axis_security.crypto.cache",
    "EncryptedBytes": "axis_security.crypto.columns",
    "EncryptedJSON": "axis_security.crypto.columns",
    "EncryptedText": "axis_security.crypto.columns",
    "FileShredLedger": "axis_security.crypto.ledger",
    "Files": "axis_security.crypto.objects",
    "IndexKeys": "axis_security.crypto.blindindex",
    "KEYSTORE_PART": "axis_security.crypto.keystore",
    "KeyMissing": "axis_security.crypto.errors",
    "KeyRing": "axis_security.crypto.keyring",
    "KeyShredded": "axis_security.crypto.errors",
    "KeyUpkeep": "axis_security.crypto.upkeep",
    "KmsRefused": "axis_security.crypto.errors",
    "KmsUnavailable": "axis_security.crypto.errors",
    "LedgerUnavailable": "axis_security.crypto.errors",
    "LocalFileKms": "axis_security.crypto.kms.local",
    "NotSearchable": "axis_security.crypto.columns",
    "ObjectMissing": "axis_security.crypto.objects",
    "PostgresKeyStore": "axis_security.crypto.keystore",
    "RingSealer": "axis_security.crypto.sealer",
    "RotationPolicy": "axis_security.crypto.keyring",
    "SealError": "axis_security.crypto.errors",
    "SealedObjects": "axis_security.crypto.objects",
    "StorageUnavailable": "axis_security.crypto.objects",
    "Tampered": "axis_security.crypto.errors",
    "TenantRequired": "axis_security.crypto.errors",
    "TransitKms": "axis_security.crypto.kms.transit",
    "Truncated": "axis_security.crypto.errors",
    "UnknownFormat": "axis_security.crypto.errors",
    "ValueTaken": "axis_security.crypto.attribute",
    "WrongContext": "axis_security.crypto.errors",
    "harden": "axis_security.crypto.columns",
    "sealed": "axis_security.crypto.attribute",
    "use_keys": "axis_security.crypto.columns",
}

__all__ = [
    "KEYSTORE_PART",
    "AwsKms",
    "BlindIndex",
    "CachePolicy",
    "EncryptedBytes",
    "EncryptedJSON",
    "EncryptedText",
    "FileShredLedger",
    "Files",
    "IndexKeys",
    "KeyMissing",
    "KeyRing",
    "KeyShredded",
    "KeyUpkeep",
    "KmsRefused",
    "KmsUnavailable",
    "LedgerUnavailable",
    "LocalFileKms",
    "NotSearchable",
    "ObjectMissing",
    "PostgresKeyStore",
    "RingSealer",
    "RotationPolicy",
    "SealError",
    "SealedObjects",
    "StorageUnavailable",
    "Tampered",
    "TenantRequired",
    "TransitKms",
    "Truncated",
    "UnknownFormat",
    "ValueTaken",
    "WrongContext",
    "harden",
    "sealed",
    "use_keys",
]

__getattr__, __dir__ = front_door(__name__, _HOME)
