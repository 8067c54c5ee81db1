"""The path of the offloaded traffic: out of the GTP tunnel, through Open vSwitch, and back.

In: a ``PathSpec`` a UE, which says what its path at this cloudlet shall be. ``path`` turns it into rules (pure data),
``plan`` into the steps from what is installed to what is desired. ``openflow`` and ``gtp_datapath`` carry the steps
out, in the switch and in the maps of the tc-BPF program; ``service`` holds it all together. Out: the ids of the rules
in force, and counters.
"""
