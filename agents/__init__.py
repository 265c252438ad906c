"""The agents by name. Imports nothing, so that the command line can list them without torch."""

from typing import NamedTuple


class AgentEntry(NamedTuple):
    """Where an agent lives and what it is, in one line."""

    module: str  # holds the config class, `make_actor` and `make_learner`
    config: str  # the config class's name
    summary: str
    paper: str
    tabular: bool = False  # learns a table: needs Discrete observations
    stepwise: bool = False  # ... one for each step of an episode
    linear: bool = False  # learns weights of fixed features: needs rows of numbers
    compiles: bool = False  # its gradient step can be compiled
    joins: bool = False  # several learners of it learn as one
    one_lane: bool = False  # learns from a single stream of steps: takes one lane a seed
    continuous: bool = False  # its actions are rows of numbers; the others' are one of a few
    own_loop: bool = False  # another library's, which simulates and learns in a loop of its own

    @property
    def fused(self) -> bool:
        """Whether it can act, step and learn in one kernel: by the table and the state alone."""
        return self.tabular and not self.stepwise

    @property
    def records(self) -> bool:
        """Whether its gradient step can be recorded as one graph of a GPU: its shapes stay the same."""
        return self.gradient and not (self.one_lane or self.own_loop)

    @property
    def gradient(self) -> bool:
        """Whether it learns a network, on any device; the others compute in kernels, on the CPU."""
        return not (self.tabular or self.linear)


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
    "n_step_sarsa": AgentEntry(
        "agents.tabular", "NStepSarsaConfig", "SARSA over n steps",
        "Sutton & Barto 2018, section 7.2", tabular=True,
    ),
    "tree_backup": AgentEntry(
        "agents.tabular", "TreeBackupConfig", "n steps, the policy's mean over what was not taken",
        "Precup et al. 2000", tabular=True,
    ),
    "q_sigma": AgentEntry(
        "agents.tabular", "QSigmaConfig", "n steps, between sampling and the policy's mean",
        "De Asis et al. 2018, arXiv:1703.01327", tabular=True,
    ),
    "sarsa_lambda": AgentEntry(
        "agents.tabular", "SarsaLambdaConfig", "SARSA with eligibility traces",
        "Rummery & Niranjan 1994", tabular=True,
    ),
    "watkins_q": AgentEntry(
        "agents.tabular", "WatkinsConfig", "Q(λ) whose traces end where the policy is left",
        "Watkins 1989", tabular=True,
    ),
    "peng_q": AgentEntry(
        "agents.tabular", "PengConfig", "Q(λ) whose traces go on whatever is done",
        "Peng & Williams 1996", tabular=True,
    ),
    "dyna_q": AgentEntry(
        "agents.tabular", "DynaQConfig", "Q-learning that plans with a model it has learned",
        "Sutton 1990", tabular=True,
    ),
    "dyna_q_plus": AgentEntry(
        "agents.tabular", "DynaQPlusConfig", "Dyna-Q with a bonus for what was not tried for long",
        "Sutton 1990", tabular=True,
    ),
    "prioritized_sweeping": AgentEntry(
        "agents.tabular", "PrioritizedSweepingConfig", "plans where values have changed most",
        "Moore & Atkeson 1993", tabular=True,
    ),
    "monte_carlo": AgentEntry(
        "agents.tabular", "MonteCarloConfig", "on-policy Monte Carlo control, first or every visit",
        "Sutton & Barto 2018, section 5.4", tabular=True,
    ),
    "r_max": AgentEntry(
        "agents.tabular", "RMaxConfig", "optimistic where little was seen, plans where enough was",
        "Brafman & Tennenholtz 2002", tabular=True,
    ),
    "ucb_hoeffding": AgentEntry(
        "agents.ucb_hoeffding", "UCBHoeffdingConfig", "episodic, explores by bounds: little regret, proven",
        "Jin et al. 2018, arXiv:1807.03765", tabular=True, stepwise=True,
    ),
    "linear_q": AgentEntry(
        "agents.linear_q", "LinearQConfig", "Q-learning that is linear in tiles of the observation",
        "Sutton & Barto 2018, sections 9.5.4 and 10.1", linear=True,
    ),
    "dqn": AgentEntry(
        "agents.dqn", "DQNConfig", "deep Q-network: replay, target network; every part of its family a switch",
        "Mnih et al. 2015, arXiv:1312.5602", compiles=True, joins=True,
    ),
    "double_dqn": AgentEntry(
        "agents.dqn_named", "DoubleDQNConfig", "one network chooses the next action, the other values it",
        "van Hasselt et al. 2016, arXiv:1509.06461", compiles=True, joins=True,
    ),
    "dueling_dqn": AgentEntry(
        "agents.dqn_named", "DuelingDQNConfig", "a state's value and its actions' advantages",
        "Wang et al. 2016, arXiv:1511.06581", compiles=True, joins=True,
    ),
    "c51": AgentEntry(
        "agents.dqn_named", "C51Config", "the distribution of returns on fixed places",
        "Bellemare et al. 2017, arXiv:1707.06887", compiles=True, joins=True,
    ),
    "qrdqn": AgentEntry(
        "agents.dqn_named", "QRDQNConfig", "the distribution of returns by its quantiles",
        "Dabney et al. 2018, arXiv:1710.10044", compiles=True, joins=True,
    ),
    "iqn": AgentEntry(
        "agents.dqn_named", "IQNConfig", "any quantile of the return, as a function of its fraction",
        "Dabney et al. 2018, arXiv:1806.06923", compiles=True, joins=True,
    ),
    "munchausen_dqn": AgentEntry(
        "agents.dqn_named", "MunchausenDQNConfig", "a softmax policy, rewarded for being sure",
        "Vieillard et al. 2020, arXiv:2007.14430", compiles=True, joins=True,
    ),
    "rainbow": AgentEntry(
        "agents.dqn_named", "RainbowConfig", "double, dueling, C51, noisy, prioritized, n-step together",
        "Hessel et al. 2018, arXiv:1710.02298", compiles=True, joins=True,
    ),
    "r2d2": AgentEntry(
        "agents.dqn_named", "R2D2Config", "an LSTM that learns from sequences with stored states",
        "Kapturowski et al. 2019, openreview r1lyTjAqYX",
    ),
    "bootstrapped_dqn": AgentEntry(
        "agents.bootstrapped_dqn", "BootstrappedDQNConfig", "an ensemble with random priors explores by guesses",
        "Osband et al. 2016, arXiv:1602.04621; 2018, arXiv:1806.03335",
    ),
    "rnd": AgentEntry(
        "agents.rnd", "RNDConfig", "explores by how badly a network predicts another, random one",
        "Burda et al. 2018, arXiv:1810.12894",
    ),
    "pqn": AgentEntry(
        "agents.pqn", "PQNConfig", "parallel Q-network: Q(λ), LayerNorm, no replay, no target network",
        "Gallici et al. 2024, arXiv:2407.04811", joins=True,
    ),
    "stream_q": AgentEntry(
        "agents.stream_q", "StreamQConfig", "Q(λ) that learns each step once, with bounded step sizes",
        "Elsayed et al. 2024, arXiv:2410.14606", one_lane=True,
    ),
    "sac": AgentEntry(
        "agents.sac", "SACConfig", "a stochastic policy that is paid for its entropy",
        "Haarnoja et al. 2018, arXiv:1812.05905", continuous=True,
    ),
    "redq": AgentEntry(
        "agents.sac_named", "REDQConfig", "SAC with ten critics and twenty updates a step",
        "Chen et al. 2021, arXiv:2101.05982", continuous=True,
    ),
    "droq": AgentEntry(
        "agents.sac_named", "DroQConfig", "the same with two critics, by dropout and LayerNorm",
        "Hiraoka et al. 2022, arXiv:2110.02034", continuous=True,
    ),
    "crossq": AgentEntry(
        "agents.sac_named", "CrossQConfig", "SAC with batch renormalisation for a target network",
        "Bhatt et al. 2024, arXiv:1902.05605", continuous=True,
    ),
    "tqc": AgentEntry(
        "agents.sac_named", "TQCConfig", "SAC with quantiles, of which the largest are left out",
        "Kuznetsov et al. 2020, arXiv:2005.04269", continuous=True,
    ),
    "td3": AgentEntry(
        "agents.td3", "TD3Config", "a deterministic policy, two critics, a smoothed target",
        "Fujimoto et al. 2018, arXiv:1802.09477", continuous=True,
    ),
    "ddpg": AgentEntry(
        "agents.td3", "DDPGConfig", "a deterministic policy that climbs its critic",
        "Lillicrap et al. 2016, arXiv:1509.02971", continuous=True,
    ),
    "naf": AgentEntry(
        "agents.naf", "NAFConfig", "Q-learning with values quadratic in the action",
        "Gu et al. 2016, arXiv:1603.00748", continuous=True,
    ),
}  # fmt: skip
