"""Parts made as the configuration wants them."""

from __future__ import annotations

from epc_monitor.identity import UeKeys
from epc_monitor.limits import Limits
from epc_monitor.pipeline import Monitor
from mobiscud.core.config import Config


def monitor(config: Config, keys: UeKeys) -> Monitor:
    """A monitor within the limits of ``monitor.limits``."""
    limits = config.monitor.limits.model_dump()
    return Monitor(keys, Limits(waiting_octets=limits.pop("waiting_mib") << 20, **limits))
