"""Whom a controller serves: the policy in force, and what it has last answered for each UE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mobiscud.controller.offload_policy import Offload, OffloadPolicy, pdns_of
from mobiscud.core.edge import PathSpec, Pvm
from mobiscud.core.events import HandoverCompleted, HandoverPrepared, UePlacedEvent
from mobiscud.core.ids import UeKey
from mobiscud.core.ue import Pdn

PLACING = (UePlacedEvent, HandoverPrepared, HandoverCompleted)
"""The events that tell a UE's PDN connections."""
Placing = UePlacedEvent | HandoverPrepared | HandoverCompleted


class Subscribers:
    """Asks the policy, and remembers its answers."""

    def __init__(self, policy: OffloadPolicy) -> None:
        self._policy = policy
        self._answers: dict[UeKey, Offload] = {}
        for ue, _ in policy.named:
            self.ask(ue, ())

    def __contains__(self, ue: object) -> bool:
        """Whether anything of the UE is offloaded, as far as was heard of it."""
        return ue in self._answers

    @property
    def known(self) -> Iterator[tuple[UeKey, Pvm]]:
        """Everyone of whom something is offloaded, and their personal VMs."""
        return ((ue, offload.pvm) for ue, offload in self._answers.items())

    def change(self, policy: OffloadPolicy) -> None:
        """From now on ask this one; the answers are those of the last until each UE is asked for again."""
        self._policy = policy

    def ask(self, ue: UeKey, pdns: Sequence[Pdn]) -> Offload | None:
        """What is offloaded for a UE with these PDN connections."""
        offload = self._policy.of(ue, pdns)
        if offload is None:
            self._answers.pop(ue, None)
        else:
            self._answers[ue] = offload
        return offload

    def answer(self, ue: UeKey) -> Offload | None:
        """What was last answered."""
        return self._answers.get(ue)

    def narrowed(self, event: Placing) -> Placing | None:
        """The event with the address and the default bearer of what is offloaded; None: nothing is."""
        pdns = pdns_of(event.pdns, event.ue_ip)
        known = self._answers.get(event.ue)
        offload = known if known is not None and not pdns else self.ask(event.ue, pdns)
        if offload is None:
            return None
        pdn = offload.pdn
        if pdn is None:
            return event
        ours = tuple(address for address in pdn.addresses if ":" not in address)
        bearers = sorted(event.bearers, key=lambda bearer: bearer.e_rab_id != pdn.e_rab_id)
        return replace(event, ue_ip=ours, bearers=tuple(bearers))

    def path(self, ue: UeKey, path: PathSpec | None) -> PathSpec | None:
        """The path, for what is offloaded of the UE alone."""
        offload = self._answers.get(ue)
        return None if path is None or offload is None else replace(path, flows=offload.flows)
