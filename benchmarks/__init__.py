"""Measures the checkout beside what else one would do: see docs/performance.md, and `make bench`."""
