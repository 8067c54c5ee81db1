"""A UE's PDN connection as the MME knows it, and what S11 says of it (TS 29.274 7.2.1, 7.2.2, 7.2.9)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mobiscud.core.ids import FTeid
from testbed import gtpv2_build as gtp
from testbed.gtpv2_build import Gtpv2Message, Ie, IeType, Interface
from testbed.nas_build import DEFAULT_BEARER


@dataclass(frozen=True, slots=True)
class PdnSession:
    """From Create to Delete Session; the S-GW may be another one in between, the P-GW stays."""

    sgw_s11: FTeid
    sgw_s1u: FTeid
    pgw: FTeid
    ue_address: str


@dataclass(frozen=True, slots=True)
class DedicatedBearer:
    """A bearer beside the default one; ``sgw_s1u`` is the S-GW's end."""

    qci: int
    sgw_s1u: FTeid


def created(response: Gtpv2Message) -> PdnSession:
    """The session that a Create Session Response tells of.

    :raises DecodeError: when something is missing
    """
    return PdnSession(
        sgw_s11=gtp.f_teid_of(response.find(IeType.F_TEID)),
        sgw_s1u=_s1u(response),
        pgw=gtp.f_teid_of(response.find(IeType.F_TEID, 1)),
        ue_address=gtp.pdn_address_of(response.find(IeType.PAA)),
    )


def moved(session: PdnSession, response: Gtpv2Message) -> PdnSession:
    """The session at the S-GW that has taken it over, by its Create Session Response.

    :raises DecodeError: when something is missing
    """
    return replace(session, sgw_s11=gtp.f_teid_of(response.find(IeType.F_TEID)), sgw_s1u=_s1u(response))


def to_be_moved(session: PdnSession, enb: FTeid) -> tuple[Ie, ...]:
    """What a Create Session Request says last to the S-GW that is to take a session over, with the P-GW's end and the
    eNodeB's (TS 23.401 5.5.1.1.3, step 2)."""
    ends = (gtp.f_teid(Interface.S1U_ENB, enb), gtp.f_teid(Interface.S5U_PGW, session.pgw, instance=3))
    return (
        gtp.f_teid(Interface.S5C_PGW, session.pgw, instance=1),
        gtp.bearer_context(gtp.ebi(DEFAULT_BEARER), *ends, gtp.default_bearer_qos()),
        gtp.operation_indication(),
    )


def _s1u(response: Gtpv2Message) -> FTeid:
    bearer = gtp.decode_ies(response.find(IeType.BEARER_CONTEXT))
    return gtp.f_teid_of(gtp.find(bearer, IeType.F_TEID))
