"""Environments of other packages for rro, and rro's benchmarks for other packages: one module each,
found through the doors.

Nothing here is imported by another part of rro, and each module imports its package only when it is
used."""
