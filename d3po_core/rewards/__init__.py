"""Rewards: programs that say how much they like a picture. They stand in for a person while testing, measure before and
after, and are what DRaFT climbs where they are differentiable.
"""

from .reward import Reward, check_varied, weighted_sum
from .spec import REWARDS, get_reward, require_differentiable

__all__ = ["REWARDS", "Reward", "check_varied", "get_reward", "require_differentiable", "weighted_sum"]
