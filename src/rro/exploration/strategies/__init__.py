"""The ways to explore, found by name through `rro.plugins.STRATEGIES`: each in a module of its
own."""
