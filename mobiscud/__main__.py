"""``python -m mobiscud`` is ``mobiscud``."""

from mobiscud.app.cli import main

main()
