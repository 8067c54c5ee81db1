"""Personal VMs on one cloudlet's hypervisor: start, stop, and live migration to another cloudlet.

In: ``Pvm`` values and requests (``PersonalVmHost.start``, ``migrate``, ``abort``, ``stop``).
Out: notices of what the guests do (``PvmSuspended``, ``PvmResumed``, ``PvmStopped``), stamped in the thread in which
libvirt's events arrive, so that the path can follow the guest within milliseconds; and outcomes of migrations.

``service`` drives; ``verdict``, ``lifecycle`` and ``domain_xml`` decide and are pure; ``hypervisor`` is the Protocol
that the service calls, ``libvirt_host`` its adapter: with ``libvirt_words``, ``storage`` and ``threads`` all that knows
libvirt. ``room`` says what fits; ``isolation`` and ``bandwidth`` keep guests apart, and within their share.
"""
