"""What `manage.py` can do with this app."""
