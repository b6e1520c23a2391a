"""From trees to what a learner takes: each credit in a module of its own, found through
`rro.plugins.CREDITS`."""
