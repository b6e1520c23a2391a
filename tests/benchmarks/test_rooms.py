"""The rooms of `benchmarks.rooms`: their rules, forks, and values known by dynamic programming."""

import asyncio
from collections import Counter
from itertools import product
from statistics import fmean

import pytest
from fakes import fresh_journal, grow, make_context

from benchmarks.rooms import DOORS, SECTIONS, WIDTH, Building, KnownValues, expert, place_of, rooms
from rro.exploration.strategies.group import Group
from rro.exploration.visits import played_rollouts
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, SamplingParams


def act(door):
    return Message("assistant", f"Take the {DOORS[door]} door.")


def anyone(messages, rng):
    return f"Take the {rng.choice(DOORS)} door."


def grown(folder, **options):
    """A task's tree, explored by a visitor who takes any door."""
    with fresh_journal(folder) as journal:
        context = make_context(rooms(), ScriptedPolicy(anyone), journal)
        return grow(Group(**options), context)


def test_an_episode_ends_with_the_share_of_the_coins_that_could_be_found():
    benchmark = rooms()
    task = benchmark.tasks("train")[0]
    walk, environment = task.data, benchmark.make()
    page, coins = environment.reset(task)[-1].content, 0
    for step in range(walk.steps):
        room, left = place_of(page)
        assert left == walk.steps - step
        door = step % len(DOORS)
        coins += walk.building.rooms[room].coins[door]
        result = environment.step(act(door))
        assert result.done == (step == walk.steps - 1)
        assert result.done or result.reward == 0
        page = result.observation
    assert coins > 0
    assert result.reward == pytest.approx(coins / walk.most)


def test_nonsense_is_a_step_lost():
    benchmark = rooms()
    task, environment = benchmark.tasks("test")[0], benchmark.make()
    before = place_of(environment.reset(task)[-1].content)
    result = environment.step(Message("assistant", "Take the red door. Take the red door."))
    assert result.invalid
    assert place_of(result.observation) == (before[0], before[1] - 1)


def test_another_environment_goes_on_from_a_snapshot():
    benchmark = rooms()
    task, one, other = benchmark.tasks("train")[3], benchmark.make(), benchmark.make()
    one.reset(task)
    one.step(act(0))
    other.restore(one.snapshot())
    assert other.snapshot() == one.snapshot()
    for door in (1, 2, 3):
        assert one.step(act(door)) == other.step(act(door))


def test_values_are_those_of_all_walks():
    building = Building(2, 5)
    start, left = building.wings[1][0], 3
    found = []
    for doors in product(range(len(DOORS)), repeat=left):
        room, coins = start, 0
        for door in doors:
            here = building.rooms[room]
            room, coins = here.leads_to[door], coins + here.coins[door]
        found.append(coins)
    assert building.value(start, left, 0.0) == pytest.approx(fmean(found))
    assert building.value(start, left, 1.0) == max(found)


def test_doors_lead_to_the_next_section_and_one_at_most_pays():
    building = Building(3, 1)
    for wing in building.wings:
        for place, number in enumerate(wing):
            room, section = building.rooms[number], (place // WIDTH + 1) % SECTIONS
            assert set(room.leads_to) == set(wing[section * WIDTH : (section + 1) * WIDTH])
            assert sum(room.coins) <= 1


def test_splits_share_no_walk():
    benchmark = rooms()
    splits = [{task.data for task in benchmark.tasks(name)} for name in ("train", "validation")]
    splits.append({task.data for task in benchmark.tasks("test")})
    assert len(set.union(*splits)) == sum(map(len, splits))


def test_states_recur(tmp_path):
    tree = grown(tmp_path, episodes=16)
    states = [each.states for each in played_rollouts(tree)]
    distinct = {state for visited in states for state in visited}
    assert len(distinct) < 0.5 * sum(map(len, states))


def coins_of(messages, building):
    """What the doors of a conversation had behind them."""
    pages, actions = messages[::2], messages[1::2]
    rooms_seen = [building.rooms[place_of(page.content)[0]] for page in pages]
    doors = [DOORS.index(action.content.split()[2]) for action in actions]
    return [room.coins[door] for room, door in zip(rooms_seen, doors, strict=False)]


def test_exact_credit_adds_up_to_what_was_found_beyond_what_any_door_finds(tmp_path):
    tree = grown(tmp_path, episodes=4, waves=1)
    walk = tree.task.data
    rows = KnownValues(skill=0.0).rows(tree)
    assert len(rows) == 6
    for row, played in zip(rows, played_rollouts(tree), strict=True):
        room, left = place_of(played.node.history()[-1].content)
        coins = coins_of(row.messages, walk.building)
        assert sum(coins) == round(played.outcome * walk.most)
        credits = [value for value in row.advantages if value is not None]
        assert len(credits) == left
        expected = sum(coins[-left:]) - walk.building.value(room, left, 0.0)
        assert sum(credits) == pytest.approx(expected)


def test_a_lost_step_has_negative_credit(tmp_path):
    def lazy(messages, rng):
        return "I wait."

    with fresh_journal(tmp_path) as journal:
        tree = grow(Group(episodes=1), make_context(rooms(), ScriptedPolicy(lazy), journal))
    (row,) = KnownValues(skill=0.0).rows(tree)
    credits = [value for value in row.advantages if value is not None]
    walk = tree.task.data
    assert sum(credits) == pytest.approx(-walk.building.value(walk.room, walk.steps, 0.0))


def test_the_visitors_follow_habits():
    benchmark = rooms()
    task = benchmark.tasks("train")[0]
    opening = benchmark.make().reset(task)
    habit = DOORS[task.data.building.rooms[task.data.room].habit]
    (drawn,) = asyncio.run(expert(task, 0.0, 0).sample(opening, 1, SamplingParams(), 0))
    assert drawn.message.content == f"Take the {habit} door."
    many = asyncio.run(expert(task, 1.0, 0).sample(opening, 400, SamplingParams(), 0))
    shares = Counter(one.message.content for one in many)
    assert len(shares) == len(DOORS)
    assert max(shares.values()) < 160
