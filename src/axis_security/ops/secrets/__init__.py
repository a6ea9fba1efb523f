"""Secrets from a real manager: providers, a cache that refreshes and lapses, and a scanner for the ones that got away."""

from axis_security.crypto.vault_session import AppRoleLogin as AppRoleLogin
from axis_security.crypto.vault_session import TokenLogin as TokenLogin
from axis_security.crypto.vault_session import VaultSession as VaultSession
from axis_security.ops.secrets.aws import AwsSecretsManager as AwsSecretsManager
from axis_security.ops.secrets.local import EnvironmentSecrets as EnvironmentSecrets
from axis_security.ops.secrets.local import MountedFiles as MountedFiles
from axis_security.ops.secrets.manager import RefreshPolicy as RefreshPolicy
from axis_security.ops.secrets.manager import SecretManager as SecretManager
from axis_security.ops.secrets.manager import SecretPair as SecretPair
from axis_security.ops.secrets.provider import SecretMissing as SecretMissing
from axis_security.ops.secrets.provider import SecretProvider as SecretProvider
from axis_security.ops.secrets.provider import SecretRefused as SecretRefused
from axis_security.ops.secrets.provider import SecretsUnavailable as SecretsUnavailable
from axis_security.ops.secrets.provider import SecretVersion as SecretVersion
from axis_security.ops.secrets.provider import Stage as Stage
from axis_security.ops.secrets.scan import scan_files as scan_files
from axis_security.ops.secrets.scan import scan_text as scan_text
from axis_security.ops.secrets.vault import VaultKv2 as VaultKv2

__all__ = [
    "AppRoleLogin",
    "AwsSecretsManager",
    "EnvironmentSecrets",
    "MountedFiles",
    "RefreshPolicy",
    "SecretManager",
    "SecretMissing",
    "SecretPair",
    "SecretProvider",
    "SecretRefused",
    "SecretVersion",
    "SecretsUnavailable",
    "Stage",
    "TokenLogin",
    "VaultKv2",
    "VaultSession",
    "scan_files",
    "scan_text",
]
