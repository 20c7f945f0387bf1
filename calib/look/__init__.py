"""Whether a calibration is right: what people see of it, and what is suspicious."""
