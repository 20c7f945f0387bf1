"""Calibration boards in pictures, and the lenses that they tell."""
