"""What the network is doing, inferred from its signalling: S1AP and GTPv2-C messages in, events out.

    S1AP message --> associations (S1 Setup, Reset)        \\
                 --> connections  (contexts, bearers, NAS)  >--> registry (UEs, legs, tunnels) --> facts --> events
                 --> handovers    (S1 and X2)              /
    GTPv2 message -> sessions     (who owns which tunnel) /
"""

from epc_monitor.limits import Limits
from epc_monitor.ue_tracker.tracker import UeTracker

__all__ = ["Limits", "UeTracker"]
