"""What runs beside the request: backups, health, disclosure, secrets, TLS, export, audit, evidence. Import from its modules."""
