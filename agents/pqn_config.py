"""What can be set of PQN, and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from agents import large_batch
from agents.contract import Batch, LossOut, Network, Noise
from agents.hyper import BadValue, Later, Search, at_least, check, positive, unit
from agents.rules import td


@dataclass(frozen=True)
class PQNConfig:
    """Hyperparameters of PQN; all steps are lane steps of one seed."""

    lr: Annotated[float, positive(), Search("log", 1e-4, 1e-2)] = 1e-3
    """Adam's learning rate at the start"""
    lr_end: Annotated[float, at_least(0)] = 5e-5
    """learning rate in the end"""
    lr_steps: Annotated[int, at_least(0)] = 300_000
    """lane steps over which it falls"""
    gamma: Annotated[float, unit(), Search("linear", 0.95, 0.999)] = 0.99
    """discount per step"""
    lambda_: Annotated[float, unit(), Search("linear", 0.5, 1.0)] = 0.95
    """λ of the returns: 0 bootstraps at once, 1 at the end of the rollout"""
    minibatch_size: Annotated[int, at_least(1)] = 128
    """rows in a gradient step"""
    epochs: Annotated[int, at_least(1), Search("linear", 1, 8)] = 4
    """passes over each rollout"""
    epsilon_start: Annotated[float, unit()] = 1.0
    """share of random actions at the start"""
    epsilon_end: Annotated[float, unit(), Search("linear", 0.0, 0.1)] = 0.05
    """share of random actions in the end"""
    epsilon_steps: Annotated[int, at_least(0)] = 30_000
    """lane steps over which it falls"""
    hidden: tuple[Annotated[int, at_least(1)], ...] = (64, 64)
    """widths of the hidden layers"""
    layer_norm: bool = True
    """LayerNorm after every hidden layer"""
    max_grad_norm: Annotated[float, positive()] = 10.0
    """bound on a seed's gradient norm"""
    adam_eps: Annotated[float, positive()] = 1e-8
    """Adam's epsilon"""
    reward_scale: Annotated[float, positive()] = 1.0
    """factor on rewards, for the learner only"""
    reward_clip: Annotated[float, at_least(0)] = 0.0
    """bound on scaled rewards' magnitude; 0 for none"""
    frame_stack: Annotated[int, at_least(1)] = 1
    """newest observations that the network looks at"""
    memory: Literal["none", "lstm"] = "none"
    """what of the episode's past the network goes by, behind the hidden layers"""
    memory_size: Annotated[int, at_least(1)] = 64
    """numbers in it"""
    end_on_life_loss: bool = False
    """a lost life ends the episode for the learner"""
    bf16: Annotated[bool, Later()] = False
    """convolutions and the layer behind in bfloat16, on a GPU all hidden layers; else float32"""
    optimizer: Annotated[Literal["adam", "lars", "lamb"], Later()] = "adam"
    """rule of a gradient step; lars and lamb bound each layer's by the size of its weights"""
    lr_scaling: Annotated[Literal["none", "linear", "sqrt"], Later()] = "none"
    """how lr grows with the batch of all learners over reference_batch"""
    reference_batch: Annotated[int, at_least(0), Later()] = 0
    """the batch that lr was found with, for lr_scaling"""
    warmup_steps: Annotated[int, at_least(0), Later()] = 0
    """lane steps of learning over which lr rises to the scaled one"""

    def __post_init__(self) -> None:
        check(self)
        for wrong, reason in large_batch.conflicts(self):
            if wrong:
                raise BadValue(reason)
        if self.memory != "none" and self.frame_stack > 1:
            raise BadValue(
                f"frame_stack: got {self.frame_stack}, takes 1 with a memory, which has the past already"
            )

    def loss(self, online: Network, target: Network, batch: Batch, noise: Noise) -> LossOut:
        """½(G - Q(s, a))² against the λ-returns in ``batch.extras`` (Algorithm 1, line 13)."""
        del target, noise  # there is no target network and nothing random
        q_tm1 = td.select(online(batch.obs), batch.action)
        goal = batch.extras["returns"]
        td_error = (goal - q_tm1.detach()).abs()
        metrics = {"td_error": td_error, "q_mean": q_tm1.detach(), "target_mean": goal}
        return LossOut(td.squared(q_tm1, goal), metrics)
