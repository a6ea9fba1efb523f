"""A small CRM on axis-security: FastAPI, Jinja, SQLAlchemy, PostgreSQL. ``python -m examples.crm`` starts it with sample data."""
