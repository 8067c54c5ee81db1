"""What no laptop can hold: a hundred thousand users and their VMs, a day long, in virtual time.

Walks (``mobility``) go in, and ``world`` feeds the *same* table that a controller runs
(``mobiscud.controller.machine``) and the same policies; switches, hypervisors and the bus are only the time they take.
How long a migration takes and how long the user's traffic stands still is drawn from what was measured
(``migrations``). Out come round-trip times, migrations, bytes and outages per policy (``tally``), as numbers and as
curves (``curves``).

A scenario with its seed gives the same result on every machine.
"""
