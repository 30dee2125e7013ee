"""One small round, drawn, picked, taught and settled, in whatever process has the core: what hosts are compared by."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PROMPTS = ["a lake at dawn", "a red boat"]
SAMPLE = {
    "steps": 6,
    "schedule": "karras",
    "groups": 20,
    "candidates": 3,
    "guidance_scale": 3.0,
    "width": 64,
    "height": 64,
    "batch": 3,
}
Inside = Callable[[list[Any], Any, Callable[[], Any]], Any]


def one_round(core: str, model: Any, folder: Path, inside: Inside) -> dict[str, Any]:
    """Return the figures that a round goes by, JSON-able.

    Args:
        core: name of the core's package here.
        model: the core's `ImageModel`, which knows `PROMPTS`.
        folder: of the new run.
        inside: does work with gradients, given prompts and the shape of latents.
    """

    def named(module: str, *names: str) -> list[Any]:
        return [getattr(importlib.import_module(f"{core}.{module}"), name) for name in names]

    (sample_groups,) = named("app.sampling", "sample_groups")
    next_, picks_request, settle_round = named("app.training", "Next", "PicksRequest", "settle_round")
    (prompt_adherence,) = named("evaluation.effect", "prompt_adherence")
    (pick,) = named("picks", "Pick")
    get_reward, read_images = *named("rewards", "get_reward"), *named("run.run", "read_images")
    (own_judge,) = named("rewards.judge", "own_judge")
    (run_class,) = named("run", "Run")
    lora, sample, train, replace = named("settings", "LoraSettings", "SampleSettings", "TrainSettings", "replace")

    settings, rows = replace(sample(), SAMPLE), [0]
    run = run_class.create(folder, model={"identity": model.identity}, settings={})
    for _ in sample_groups(run, model, settings, PROMPTS):
        pass
    groups = run.groups.select()
    for group in groups:
        scores = get_reward("warmth")(read_images(run, group), [group.prompt] * group.candidates)
        run.picks.add(group.id, pick("favourite", (int(scores.argmax()),)))

    latents = torch.cat([run.groups.trajectory(group.id)["latents"] for group in groups[:4]])
    prompts = [run.prompts.conditioning(group.prompt_id) for group in groups[:4] for _ in range(group.candidates)]
    shape = latents.shape[1:]
    adherence = model.evaluate(
        prompts, shape, lambda: prompt_adherence(model.denoiser, latents, prompts, settings.guidance_scale)
    )

    def count(module: Any, given: Any, out: Any) -> None:
        rows[0] += len(out[0] if isinstance(out, tuple) else getattr(out, "sample", out))

    handle = model.denoiser.module.register_forward_hook(count)
    request = picks_request(replace(train(), {"batch": 6}), lora())
    saved = inside(prompts, shape, lambda: request.train(run, model, "hooks", lambda report: next_.CONTINUE))
    saved = settle_round(run, model, saved, settings, "hooks", lambda done, total: None)
    handle.remove()
    result = saved.result
    figures = {
        "latents": latents.flatten().tolist(),
        "adherence": adherence.flatten().tolist(),
        "judge": own_judge(run, ["network"]).facts.accuracy,
        "evidence": [result.z, result.strength],
        "strength": result.lora_strength,
        "kept": [list(each) for each in result.kept],
        "drift": [list(each) for each in result.strength_scan],
        "win": result.win,
        "rows": rows[0],
        "favourites": [list(each.pick.order) for each in run.picks.judgements()],
        "lora": sorted(float((one.up.flatten(1) @ one.down.flatten(1)).norm()) for one in result.weights.values()),
    }
    run.close()
    return figures
