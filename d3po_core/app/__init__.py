"""The use cases that all front ends share: the command line, the Studio, the web UIs' tab and ComfyUI's nodes.

| file | what is in it |
|---|---|
| `runs` | begin a run, read how it is drawn and trained, and say what was imported into it |
| `sampling` | draw groups into a run, and images of one prompt without and with a LoRA |
| `training` | train a round, by picks or by a reward, to its end, a pause or a stop, and say what came out |
| `together`, `handing_over` | draw by several processes; open a run in all of them, also on other computers |
| `loras` | keep a round's LoRA, weaken it or go back from it, and copy it to where a host lists it |
| `tournament`, `swiss` | pictures that exist already, two at a time: the next matches, and who is best |
| `cost` | what work takes, and what is done where memory runs out |

Nothing here knows a host or a page.
"""
