"""Calibrations in other programs' and data sets' formats: `read_rig`, `write_rig`; one module per format.

A format is recognised by what is in the files, never by their names. Each module has `read(sources, wishes)`,
which declines with `NotThis` and the reason, or returns the cameras as the files have them; `foreign.settle`
makes them ours. docs/calibration.md lists the formats with their units and axes.
"""
