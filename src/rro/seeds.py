"""Seeds by name: every random draw's seed comes from what it is for, never from when it happens.

So results do not depend on concurrency, and a resumed run draws what the undisturbed one would have
drawn."""

from __future__ import annotations

from hashlib import blake2b


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from the printed form of `parts`, e.g. derive_seed(run_seed, "rollout", task,
    node, 3)."""
    text = "\x1f".join(str(part) for part in parts)
    return (
        int.from_bytes(
            blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
        )
        >> 1
    )
