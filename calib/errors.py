"""What `calib` raises.

CalibError      the user's calibration (a file, a number, a size) cannot be used: what, where and what to do,
in one line
"""


class CalibError(Exception):
    """A calibration that cannot be used. The message is one line: what is wrong, where, and what to do about
    it.
    """
