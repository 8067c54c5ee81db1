"""The emulated EPC as a process: ``python -m testbed.epc CONFIG.json``.

MME and S-GWs in one namespace, the P-GW with its TUN device in another. Prints READY when it listens, ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from testbed import netns_socket
from testbed.gateway_user_plane import PgwUserPlane, SgwUserPlane
from testbed.gtpu_socket import GTPU_PORT
from testbed.gtpv2_build import GTPC_PORT
from testbed.lte_config import EpcConfig, PgwConfig, load
from testbed.mme import Mme
from testbed.process import announce_ready, main, stop_event
from testbed.s11 import S11Client
from testbed.sctp_link import open_endpoint
from testbed.sgw import AddressPool, Gateways


async def run(file: Path) -> None:
    """Serve until a signal comes.

    :raises ConfigError: for a wrong configuration
    :raises SetupError: when a namespace, an address or a privilege is missing
    """
    config = load(EpcConfig, file)
    stop = stop_event()
    async with AsyncExitStack() as stack:
        _open_gateways(config, stack)
        s11 = S11Client(netns_socket.udp_socket(config.namespace, str(config.mme.s11_address), GTPC_PORT))
        stack.callback(s11.close)
        endpoint = open_endpoint(config.namespace, str(config.mme.s1_address))
        stack.callback(endpoint.close)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        mme = Mme(config, s11, tasks)
        stack.push_async_callback(mme.close)
        endpoint.listen(mme.accept)
        announce_ready()
        await stop.wait()


def _open_gateways(config: EpcConfig, stack: AsyncExitStack) -> None:
    pgw_user = PgwUserPlane(
        netns_socket.udp_socket(config.pgw.namespace, str(config.pgw.s5_address), GTPU_PORT), _open_tun(config.pgw)
    )
    stack.callback(pgw_user.close)
    pool = AddressPool(config.pgw.pool)
    for sgw in (config.sgw, config.other_sgw):
        if sgw is None:
            continue
        sgw_user = SgwUserPlane(
            netns_socket.udp_socket(config.namespace, str(sgw.s1u_address), GTPU_PORT),
            netns_socket.udp_socket(config.namespace, str(sgw.s5_address), GTPU_PORT),
        )
        stack.callback(sgw_user.close)
        s11 = netns_socket.udp_socket(config.namespace, str(sgw.s11_address), GTPC_PORT)
        stack.callback(Gateways(sgw, config.pgw, s11, sgw_user, pgw_user, pool).close)


def _open_tun(pgw: PgwConfig) -> int:
    """The P-GW's door to the packet network: its address is the first host of the pool, its subnet the pool."""
    tun = netns_socket.tun_device(pgw.namespace, pgw.tun_device)
    gateway = next(pgw.pool.hosts())
    netns_socket.ip(pgw.namespace, "address", "replace", f"{gateway}/{pgw.pool.prefixlen}", "dev", pgw.tun_device)
    netns_socket.ip(pgw.namespace, "link", "set", pgw.tun_device, "up", "mtu", "1500")
    netns_socket.write_sysctl(pgw.namespace, "ipv4/ip_forward", "1")
    return tun


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run))
