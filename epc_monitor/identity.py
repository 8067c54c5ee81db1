"""UE keys: what names a UE to the outside without telling who it is."""

from __future__ import annotations

import hmac

from mobiscud.core.ids import UeKey


class UeKeys:
    """Makes UE keys with a secret: the same IMSI gives the same key for ever, the key alone gives nothing away."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("the secret of the UE keys needs at least 16 octets")
        self._key = key

    def of_imsi(self, imsi: str) -> UeKey:
        """The lasting key of a subscriber."""
        return self._make(b"imsi:" + imsi.encode())

    def of_place(self, place: bytes) -> UeKey:
        """A key for a UE whose IMSI is not known, made of the place on the wire where it was first seen."""
        return self._make(b"place:" + place)

    def of_temporary(self, mme: str, s_tmsi: bytes) -> str:
        """A mark by which a temporary identity of an MME is known again, and that tells nobody which it is."""
        return self._make(b"s-tmsi:" + mme.encode() + b":" + s_tmsi)[3:]

    def _make(self, what: bytes) -> UeKey:
        return UeKey(f"ue-{hmac.digest(self._key, what, 'sha256')[:8].hex()}")
