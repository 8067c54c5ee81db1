"""The emulated RAN as a process: ``python -m testbed.ran CONFIG.json``.

eNodeBs and UEs in one event loop, sockets in the namespaces of each. Prints READY when every S1 Setup is done, is
steered over a unix socket (:mod:`testbed.ran_control`), ends on SIGTERM with SCTP SHUTDOWN.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from testbed.enb import Enodeb
from testbed.lte_config import RanConfig, load
from testbed.process import announce_ready, main, stop_event
from testbed.ran_control import ControlServer
from testbed.ran_ue import RadioAccess, RanUe
from testbed.s1ap_build import S1apMessage
from testbed.ue_routes import UeRoutes


async def run(file: Path) -> None:
    """Serve until a signal comes.

    :raises ConfigError: for a wrong configuration
    :raises SetupError: when a namespace, a device or a privilege is missing
    :raises ConnectionError: when the MME does not answer
    """
    config = load(RanConfig, file)
    stop = stop_event()
    async with AsyncExitStack() as stack:
        routes = UeRoutes(
            config.ue_namespace,
            {enb.ue_device: (enb.namespace, enb.radio_device) for enb in config.enbs},
            config.ue_mtu,
        )
        stack.callback(routes.close)
        access = RadioAccess(
            uu_s=config.uu_delay_s,
            x2_s=config.x2_delay_s,
            interruption_s=config.interruption_s,
            forwarding=config.forwarding,
        )
        ues = {ue.name: RanUe(ue, index, routes, access) for index, ue in enumerate(config.ues)}
        for ue in ues.values():
            stack.callback(ue.close)

        def find_target(enb: Enodeb, request: S1apMessage) -> None:
            any(ue.prepare_target(enb, request) for ue in ues.values())

        enbs: dict[int, Enodeb] = {}
        for entry in config.enbs:
            enb = Enodeb(entry, config.plmn.plmn, config.ue_namespace)
            stack.push_async_callback(enb.close)
            enb.on_handover_request = find_target
            enbs[entry.number] = enb
        async with asyncio.TaskGroup() as setups:
            for enb in enbs.values():
                setups.create_task(
                    enb.set_up(str(config.mme_address), config.connect_limit_s), name=f"s1-setup-{enb.number}"
                )
        control = ControlServer(enbs, ues)
        await stack.enter_async_context(control.serve(config.control_socket))
        for enb in enbs.values():
            enb.on_paging = control.on_paging
        announce_ready()
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run))
