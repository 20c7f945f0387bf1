"""One ground-plane count from cheap, unsynchronised, low-frame-rate cameras."""

__version__ = "0.1.0"
