"""Learners are looked up, and their options read, without what trains."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["rro.learning.sft", "rro.learning.dpo", "rro.learning.policy_gradient"]
)
def test_a_learner_imports_nothing_heavy_before_it_trains(module):
    code = f"import sys, {module}; print(*{{'torch', 'trl', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
