"""The latency laboratory: the whole site behind networks that are bad in a named, repeatable way."""
