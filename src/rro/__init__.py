"""Reward Rising Optimization: train LLM agents step by step from process rewards that rise (arXiv
2505.20737).

The public names are those of `rro.types`, `rro.config`, `rro.environments`, `rro.policies`,
`rro.exploration` and `rro.pipeline.stages`; this module imports nothing, so that `import rro` costs
nothing."""

__version__ = "0.1.0"
