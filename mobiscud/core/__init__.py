"""The ground floor: what every other package of MobiScud may know.

Identifiers, the model of the network (UEs, bearers, cloudlets, personal VMs), the events that say what has
happened, the commands that say what shall be done, the errors and the configuration. Pure values: nothing here
does I/O, reads a clock or imports another package of ours.
"""
