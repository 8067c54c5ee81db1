"""MobiScud measures itself: ``mobiscud bench decode | replay | latency``.

    traffic, wire --> PDUs, frames --> contestants, each in a process of its own --> medians --> ratios of one run

Figures of different machines, or of different moments of one machine, do not compare; what is taken in one run on the
same data does. So every bench brings its own yardstick (pycrate, tshark) and says on what it ran.
"""
