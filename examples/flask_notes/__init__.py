"""Notes for teams: the smallest honest Flask app on axis-security. ``python -m examples.flask_notes`` runs it."""
