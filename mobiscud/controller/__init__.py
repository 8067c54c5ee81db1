"""The controller of a cloudlet: events and outcomes in, commands out.

``inputs`` names what a controller learns and reads it from events; ``machine`` is the table of what it then does,
UE by UE (pure); ``service`` carries the commands out on the switch, the hypervisor and the bus, each UE in order,
many UEs at once.
"""
