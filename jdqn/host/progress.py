"""How far a run is: what the host adds up beside the state."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Progress:
    """The clock, and what the host adds up beside the state. Saved with it."""

    iteration: int
    reports: int
    reported: int  # iteration of the last report
    env_steps: np.ndarray  # [S] int64
    seconds: float
    generations: int
    returns: np.ndarray  # [S] sum over the episodes of this generation
    episodes: np.ndarray  # [S]
    sick: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # what was found, and what was done
    best: dict[str, Any] | None = None  # the best checkpoint so far, where each tenth is evaluated

    @classmethod
    def of(cls, agents: int, iteration: int) -> "Progress":
        """Nothing yet."""
        return cls(iteration, 0, 0, np.zeros(agents, np.int64), 0.0, 0, np.zeros(agents), np.zeros(agents))

    def begin_generation(self) -> None:
        """Episodes from now on are what agents are judged by."""
        self.returns, self.episodes = np.zeros_like(self.returns), np.zeros_like(self.episodes)

    @property
    def dropped(self) -> list[int]:
        """Agents that are no longer looked at."""
        last = {found["agent"]: found["done"] for found in self.sick}
        return [agent for agent, done in last.items() if done == "dropped"]

    def to_json(self) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Progress":
        arrays = {field.name for field in dataclasses.fields(cls) if field.type is np.ndarray}
        fields: dict[str, Any] = {k: np.array(v) if k in arrays else v for k, v in content.items()}
        return cls(**fields)
