"""What the controllers see, put together."""

from __future__ import annotations

import json

from mobiscud.app.status import table
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.controller.status import together, told
from mobiscud.core.edge import Pvm
from mobiscud.core.ids import CloudletId, ERabId, PvmId, UeKey
from mobiscud.core.ue import Pdn

C1, C2 = CloudletId("c1"), CloudletId("c2")
ALICE, BOB, CAROL = (UeKey(f"ue-000000000000000{k}") for k in (1, 2, 3))


def record(ue: UeKey, here: CloudletId, phase: Phase = Phase.AWAY, **known: object) -> UeRecord:
    pvm = Pvm(PvmId(f"p{ue[-1]}"), f"172.16.1.{ue[-1]}", f"52:54:00:00:00:0{ue[-1]}")
    return UeRecord(pvm, here, phase, **known)  # type: ignore[arg-type]


HERE = {"registered": True, "ue_ip": "45.45.0.2", "ue_at": C2, "pvm_at": C1, "pdn": Pdn(ERabId(5), "internet")}
FIRST = told(C1, {ALICE: record(ALICE, C1, Phase.LENDING, **HERE), BOB: record(BOB, C1)})
SECOND = told(
    C2,
    {
        ALICE: record(ALICE, C2, Phase.DETOURED, **HERE),
        BOB: record(BOB, C2),
        CAROL: record(CAROL, C2, Phase.PARKED, registered=True, pvm_at=C2),
    },
)


def test_who_is_nowhere_is_left_out() -> None:
    assert [ue["ue"] for ue in FIRST["ues"]] == [ALICE]
    assert FIRST["phases"] == {"lending": 1}
    assert json.loads(json.dumps(SECOND)) == SECOND


def test_one_line_a_ue() -> None:
    status = together([FIRST, SECOND])
    alice, carol = status["ues"]
    assert (alice["ue_at"], alice["pvm_at"], alice["apn"], alice["ue_ip"]) == ("c2", ["c1"], "internet", "45.45.0.2")
    assert alice["phases"] == {"c1": "lending", "c2": "detoured"}
    assert carol["ue_at"] is None
    assert [(pvm["id"], pvm["at"], pvm["ue"]) for pvm in status["personal_vms"]] == [
        ("p1", ["c1"], ALICE),
        ("p3", ["c2"], CAROL),
    ]
    assert "ues" not in status["cloudlets"][0]


def test_two_that_claim_a_personal_vm_are_both_shown() -> None:
    claims = [told(c, {ALICE: record(ALICE, c, Phase.SERVING, registered=True, pvm_at=c)}) for c in (C1, C2)]
    [alice] = together(claims)["ues"]
    assert alice["pvm_at"] == ["c1", "c2"]


def test_where_the_one_that_has_it_is_silent_the_others_word_counts() -> None:
    [alice, _] = together([SECOND])["ues"]
    assert alice["pvm_at"] == ["c1"]


def test_a_table_for_people() -> None:
    first = {**FIRST, "node": "edge1", "mode": "enforce", "rules": {"uplink": 3}, "backlog": 0}
    lines = table(together([first, SECOND])).splitlines()
    assert lines[0].split() == ["CLOUDLET", "NODE", "MODE", "UES", "RULES", "BACKLOG"]
    assert lines[1].split() == ["c1", "edge1", "enforce", "1", "lending", "3", "uplink", "0"]
    assert any(line.startswith(ALICE) and "c1:lending c2:detoured" in line for line in lines)
    assert any("idle, or nowhere" in line for line in lines if line.startswith(CAROL))
