"""What the controllers see: told by each of itself, and put together for whoever asked. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mobiscud.controller.record import Phase, UeRecord
from mobiscud.core.ids import CloudletId, UeKey

Json = dict[str, Any]


def told(here: CloudletId, records: Mapping[UeKey, UeRecord]) -> Json:
    """What the controller of ``here`` knows; a UE that is nowhere, with a personal VM that is nowhere, is left out."""
    known = {ue: r for ue, r in records.items() if r.registered or r.pvm_at or r.phase is not Phase.AWAY}
    phases = Counter(record.phase for record in known.values())
    return {
        "cloudlet": here,
        "phases": {str(phase): number for phase, number in sorted(phases.items())},
        "ues": [_ue(ue, record) for ue, record in sorted(known.items())],
    }


def _ue(ue: UeKey, r: UeRecord) -> Json:
    return {
        "ue": ue,
        "ue_ip": r.ue_ip,
        "apn": r.pdn.apn if r.pdn else None,
        "registered": r.registered,
        "phase": str(r.phase),
        "ue_at": r.ue_at,
        "pvm": {"id": r.pvm.id, "address": r.pvm.address, "mac": r.pvm.mac},
        "pvm_at": r.pvm_at,
    }


def together(cloudlets: Sequence[Json]) -> Json:
    """What all have told, by UE and by personal VM. Of a VM the cloudlet knows best that has it."""
    by_ue: dict[str, list[tuple[str, Json]]] = {}
    for cloudlet in cloudlets:
        for ue in cloudlet["ues"]:
            by_ue.setdefault(ue["ue"], []).append((cloudlet["cloudlet"], ue))
    ues = [_merged(name, told_by) for name, told_by in sorted(by_ue.items())]
    pvms = [{**ue["pvm"], "at": ue["pvm_at"], "ue": ue["ue"]} for ue in ues if ue["pvm_at"]]
    shown = [{name: value for name, value in cloudlet.items() if name != "ues"} for cloudlet in cloudlets]
    return {"cloudlets": shown, "ues": ues, "personal_vms": pvms}


def _merged(name: str, told_by: Sequence[tuple[str, Json]]) -> Json:
    having = [cloudlet for cloudlet, ue in told_by if ue["pvm_at"] == cloudlet]
    at = having or list(_each(ue["pvm_at"] for _, ue in told_by))[:1]
    ordered = sorted(told_by, key=lambda told: told[0] not in having)
    return {
        "ue": name,
        "ue_ip": next(_each(ue["ue_ip"] for _, ue in ordered), None),
        "apn": next(_each(ue["apn"] for _, ue in ordered), None),
        "registered": any(ue["registered"] for _, ue in told_by),
        "ue_at": next(_each(ue["ue_at"] for _, ue in ordered), None),
        "pvm": ordered[0][1]["pvm"],
        "pvm_at": at,
        "phases": {cloudlet: ue["phase"] for cloudlet, ue in sorted(told_by, key=lambda told: told[0])},
    }


def _each(values: Iterable[Any]) -> Iterator[Any]:
    """Those that are known."""
    return (value for value in values if value is not None)
