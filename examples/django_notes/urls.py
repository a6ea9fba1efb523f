"""The paths."""

from __future__ import annotations

from django.urls import path
from examples.django_notes.views import Notes, SignIn, sign_out

urlpatterns = [path("", Notes.as_view()), path("sign-in", SignIn.as_view()), path("sign-out", sign_out)]
