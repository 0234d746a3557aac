"""How far a run is: what the host adds up beside the state."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Progress:
    """The clock, and what the host adds up beside the state. Saved with it."""

    iteration: int
    reports: int
    env_steps: np.ndarray  # [S] int64
    seconds: float
    generations: int
    returns: np.ndarray  # [S] sum over the episodes of this generation
    episodes: np.ndarray  # [S]

    @classmethod
    def of(cls, agents: int, iteration: int) -> "Progress":
        """Nothing yet."""
        return cls(iteration, 0, np.zeros(agents, np.int64), 0.0, 0, np.zeros(agents), np.zeros(agents))

    def to_json(self) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Progress":
        fields: dict[str, Any] = {k: np.array(v) if isinstance(v, list) else v for k, v in content.items()}
        return cls(**fields)
