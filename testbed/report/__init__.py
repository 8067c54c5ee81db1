"""The report of a run: one page that needs nothing else, and its plots as files."""

from testbed.report.page import RunData, write

__all__ = ["RunData", "write"]
