"""The attack gallery: real attempts on another tenant's rows, each with the proof that it could have worked."""

from axis_security.testing.gallery.attack import Attack as Attack
from axis_security.testing.gallery.attack import Layer as Layer
from axis_security.testing.gallery.attack import Verdict as Verdict
from axis_security.testing.gallery.run import ATTACKS as ATTACKS
from axis_security.testing.gallery.run import Result as Result
from axis_security.testing.gallery.run import run_gallery as run_gallery

__all__ = ["ATTACKS", "Attack", "Layer", "Result", "Verdict", "run_gallery"]
