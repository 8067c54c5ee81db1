"""Errors say who is at fault; anything else that is raised is our own bug."""


class MobiScudError(Exception):
    """The root of all errors that MobiScud raises on purpose."""


class DecodeError(MobiScudError):
    """The peer's fault: bytes that are not what they claim to be. Drop and count.

    ``offset`` is the octet at which reading had to stop, counted from the start of what was given to the decoder.
    """

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset


class ConfigError(MobiScudError):
    """The operator's fault: refuse to start. One entry a wrong key, ``path: why``."""

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems))


class AdapterError(MobiScudError):
    """A switch, a hypervisor or the broker failed: retry, or undo."""


class RefusedError(AdapterError):
    """Another controller has answered: no. Where it is silent instead, it may have done what it was asked."""


class MoveError(AdapterError):
    """A personal VM did not move. ``stayed``: it never stood still and runs where it was, so that there is no other
    copy; without that, who has it is in doubt until both sides have been asked.
    """

    stayed: bool = False


class SetupError(MobiScudError):
    """The machine lacks something (a privilege, a program, a device): say what, and the mend."""
