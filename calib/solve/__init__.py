"""Where cameras stand: from points, from boards at rest, and all of them at once. Needs the extra `calib`."""
