"""``python -m axis_security.cli``."""

from axis_security.cli import main

main()
