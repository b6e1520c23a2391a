"""A policy behind an address: agents that are not ours act with it, and what they drew is kept for
learning (docs/agents.md)."""
