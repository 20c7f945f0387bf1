"""Simulated crowds, seen by simulated cameras over RTSP."""
