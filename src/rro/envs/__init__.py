"""The name of `rro.environments` in rro 0.1: environments written for it are found for one minor
version."""
