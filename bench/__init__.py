"""Benchmarks: what a run costs in time, memory and bytes, beside what it is compared with in the same run."""
