"""The controller of a cloudlet: events and outcomes in, commands out.

``inputs`` names what a controller learns, and ``hearing`` reads it from events; ``machine`` is the table of what it
then does, UE by UE (pure), its rows in ``roles``; ``service`` takes each UE's inputs in order, many UEs at once, and
``deeds`` carries commands out on the switch, the hypervisor (``guests``), other controllers (``peers``), the bus.
"""
