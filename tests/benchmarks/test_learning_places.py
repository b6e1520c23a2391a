"""The places and methods of `benchmarks.learning`: every combination is a recipe that loads."""

import pytest

from benchmarks.learning import METHODS, PLACES, ROOT, Trial
from rro.config import load_config


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", METHODS)
def test_a_trial_is_a_recipe(tmp_path, place, method):
    trial = Trial(place, method, 3, 6000, True, ("policy.max_batch=7",))
    config = load_config(ROOT / PLACES[place].recipe, trial.overrides(tmp_path))
    assert config.seed == 3
    assert config.rounds.generated_tokens == 6000
    assert config.environment.test_split == PLACES[place].validation
    assert config.policy.max_batch == 7


def test_the_rooms_control_knows_their_values(tmp_path):
    trial = Trial("rooms", "known", 0, 6000, False)
    config = load_config(ROOT / PLACES["rooms"].recipe, trial.overrides(tmp_path))
    assert config.credit.name == "benchmarks.rooms:KnownValues"
    assert (config.explore.tasks, config.explore.options["episodes"]) == (2, 16)
