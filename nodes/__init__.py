"""The ComfyUI nodes.

extension       what the host is given: all nodes, and the gallery's routes
pick            draw groups, pick in them, pick by a scorer, open a taste
train           train a LoRA from picks, load it, compare before and after
reward          rewards, a reward from picks, train a LoRA by a reward
import_images   images that exist already
drawing         one press of Queue at the sampler
host_round      one round of training inside one sampling of the host's
gallery         what the gallery can do in this host
progress        work that goes on, shown in three places
graph, prompts  what the graph says of a MODEL and of prompts
inputs          schemas with the texts of locales/, and widgets made from the core's settings
folders         tastes and LoRAs in the host's folders
host/           all that knows how ComfyUI works inside
"""
