"""Rewards, judges and auto-pick.

A reward is anything that scores images: a `Reward`. A judge is a preference model that was fitted to a person's picks;
if it predicts picks better than chance, it can be used as a reward (`Judge.reward`). Auto-pick picks with a reward, in
place of a person.

| file | what is in it |
|---|---|
| `reward` | `Reward`, its checks, weighted sums, and functions of one's own |
| `spec` | the built-in rewards by name, and `get_reward`, which reads texts such as `warmth + 0.5*clip:/folder` |
| `simple` | built-in rewards that look at colours, at the embedded model's flowers or at the size of a JPEG |
| `clip`, `clip_images` | CLIP, PickScore, HPSv2 and LAION's aesthetic score, from folders |
| `features`, `activations` | what a judge sees of an image; what of it the network sees |
| `description` | what is known of a run's pictures, and is kept with it |
| `judge`, `cross_validation` | fitting a judge to picks, measuring it on unseen groups, saving it |
| `auto_pick` | picks with a reward |
"""

from .reward import Reward, check_varied, reward_of, weighted_sum
from .spec import REWARDS, get_reward, require_differentiable

__all__ = ["REWARDS", "Reward", "check_varied", "get_reward", "require_differentiable", "reward_of", "weighted_sum"]
