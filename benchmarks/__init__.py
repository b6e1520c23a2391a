"""Measurements of speed and memory; each prints one JSON object: `python -m benchmarks.NAME`."""
