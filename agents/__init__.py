"""The agents by name. Imports nothing, so that the command line can list them without torch."""

from typing import NamedTuple


class AgentEntry(NamedTuple):
    """Where an agent lives and what it is, in one line."""

    module: str  # holds the config class, `make_actor` and `make_learner`
    config: str  # the config class's name
    summary: str
    paper: str
    tabular: bool = False  # learns a table: needs Discrete observations


AGENTS: dict[str, AgentEntry] = {
    "q_learning": AgentEntry(
        "agents.tabular", "QLearningConfig", "off-policy TD control with a table",
        "Watkins 1989", tabular=True,
    ),
    "sarsa": AgentEntry(
        "agents.tabular", "SarsaConfig", "on-policy TD control with a table",
        "Rummery & Niranjan 1994", tabular=True,
    ),
    "expected_sarsa": AgentEntry(
        "agents.tabular", "ExpectedSarsaConfig", "SARSA with the policy's mean for the next action",
        "van Seijen et al. 2009", tabular=True,
    ),
    "double_q": AgentEntry(
        "agents.tabular", "DoubleQConfig", "two tables, one chooses and the other values",
        "van Hasselt 2010", tabular=True,
    ),
    "dqn": AgentEntry(
        "agents.dqn", "DQNConfig", "deep Q-network: replay, target network; double, dueling, n-step",
        "Mnih et al. 2015, arXiv:1312.5602",
    ),
    "pqn": AgentEntry(
        "agents.pqn", "PQNConfig", "parallel Q-network: Q(λ), LayerNorm, no replay, no target network",
        "Gallici et al. 2024, arXiv:2407.04811",
    ),
}  # fmt: skip
