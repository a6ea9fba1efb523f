"""Key services: OpenBao or Vault Transit, AWS KMS, and a local file for development."""
