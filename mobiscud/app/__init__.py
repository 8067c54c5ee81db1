"""The roof: the command line, and the wiring of a node. Imports everything, is imported by nobody."""
