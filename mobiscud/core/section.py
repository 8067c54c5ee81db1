"""What the sections of the configuration are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """What all sections have in common: frozen, and no key that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _mac(text: str) -> str:
    octets = text.lower().split(":")
    if len(octets) != 6 or any(len(o) != 2 or not set(o) <= set("0123456789abcdef") for o in octets):
        raise ValueError("is a MAC address such as 52:54:00:00:00:10")
    if int(octets[0], 16) & 1:
        raise ValueError("is a multicast address")
    return text.lower()


def _name(text: str) -> str:
    if not text or not all(c.isalnum() or c in "-_." for c in text):
        raise ValueError("is made of letters, digits, '-', '_' and '.'")  # it becomes part of a topic and a file name
    return text


Name = Annotated[str, AfterValidator(_name)]
Mac = Annotated[str, AfterValidator(_mac)]
