"""Desynchronised data sets, losses, metrics, training and evaluation."""
