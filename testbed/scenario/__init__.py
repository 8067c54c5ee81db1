"""Experiments that users write: a scenario in YAML, run on the testbed, to raw data, figures and a report.

    scenario.yaml -> schema -> mobility (what happens when) -> play (on the testbed) -> raw data
                  -> figures -> results.json -> testbed.report -> report.html and plots

``schema``, ``mobility``, ``figures``, ``statistics`` and ``compare`` are pure; ``play`` and ``experiment`` do the work.
"""
