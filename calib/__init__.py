"""Calibrated cameras over one ground plane: camera model, ground grid, epipolar geometry, scene file,
importers.

Conventions, decided once (see ``calib.camera``): the world is in metres, right-handed, z up, ground z = 0;
cameras follow OpenCV's axes, ``x_camera = R x_world + t``; pixel centres lie at integer coordinates; arrays
are (height, width), points (x, y).
"""
