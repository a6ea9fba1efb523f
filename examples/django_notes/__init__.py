"""Notes for teams: the smallest honest Django project on axis-security. ``python -m examples.django_notes`` runs it."""
