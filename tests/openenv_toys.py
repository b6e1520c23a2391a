"""A server of OpenEnv's own kind. Importing OpenEnv takes seconds, so only who needs it does."""

from openenv.core.env_server import Environment, create_fastapi_app
from openenv.core.env_server.types import Action, Observation, State


class Say(Action):
    text: str


class Seen(Observation):
    heard: str


class Counter(Environment):
    """Of OpenEnv's own kind, which is not rro's: no tasks, no snapshots, rewards at each step."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, start=0, **kw):
        self.count = start + (seed or 0) % 3
        return Seen(heard=f"at {self.count}")

    def step(self, action, timeout_s=None, **kw):
        if action.text == "break":
            raise RuntimeError("the server's fault")
        if action.text == "leave":
            return Seen(heard="", reward=None, done=True)
        self.count += action.text == "up"
        said = {"count": self.count}
        return Seen(heard=f"at {self.count}", reward=0.25, done=self.count >= 4, metadata=said)

    @property
    def state(self):
        return State(step_count=self.count)


def counting_app():
    return create_fastapi_app(Counter, Say, Seen, max_concurrent_envs=64)
