"""The command line, one program: ``mobiscud``."""


def main() -> None:
    """Entry point of the console script."""
