"""One round of teaching by a differentiable reward: DRaFT, DRaFT-K, DRaFT-LV or ReFL (see draft.py).

A generator of reports, as the trainer by picks is one, on the same run and with the same file at the end. What keeps a
reward from being climbed until it ruins pictures: drift from the base model, watched as training goes on, ends it; and
at the end the LoRA is tried at several strengths, of which the strongest whose drift is not high is recommended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import D3POError
from ..image_model import ImageModel
from ..rewards import Reward, check_varied, require_differentiable
from ..rollout import Trajectory, generator
from ..run import Run
from ..settings import LoraSettings, RewardSettings, SampleSettings
from ..tiles import in_tiles
from .optimizer import Optimizer
from .passes import mean_kl
from .reports import RewardReport
from .reward_course import RewardCourse
from .reward_gradient import RewardGradient, Scene
from .state import unpack_optimizer


class RewardTrainer(RewardCourse):
    """Teaches one round by a reward, see `Course`.

    Args:
        run: its prompts are what is drawn for; it needs no picks.
        model: the base model. Its decoder must pass gradients on.
        reward: differentiable.
        settings: how. An interrupted round goes on with those that it was begun with.
        sample: how pictures are drawn.
        prompts: ids of those to draw for; if none are named, all that are encoded and did not just come with imported
            pictures. An interrupted round goes on with those that it was begun with.

    Raises:
        D3POError: settings out of range, a reward that is not differentiable or not that of the interrupted round, or
            a run without prompts.
    """

    def __init__(
        self,
        run: Run,
        model: ImageModel,
        reward: Reward,
        settings: RewardSettings,
        lora_settings: LoraSettings,
        sample: SampleSettings,
        attachment: str = "peft",
        prompts: Sequence[int] = (),
    ) -> None:
        self.reward, self.reward_name = require_differentiable(reward), reward.name
        super().__init__(run, model, settings, lora_settings, sample, attachment, prompts)
        unfinished = self._unfinished()
        if unfinished and unfinished.settings["reward_name"] != self.reward_name:
            raise D3POError(
                f"Round {unfinished.number} of this taste was stopped in the middle of learning from "
                f"'{unfinished.settings['reward_name']}'.",
                "Go on with that reward, or finish the round as it is, first.",
                "What it has learnt is saved.",
            )

    def _begin_or_resume(self) -> None:
        unfinished = self._unfinished()
        if unfinished is None:
            self._start = self.run.current_policy()
            self.round = self.run.begin_round(self._stored(), "base", anew=True, by_picks=False)
        else:
            self._resume(unfinished)
        self._note(reward=dataclasses.asdict(self.settings))

    def _stored(self) -> dict[str, Any]:
        return {
            "reward": dataclasses.asdict(self.settings),
            "reward_name": self.reward_name,
            "written": self.reward.written,
            "lora": dataclasses.asdict(self.lora_settings),
            "start": self._start,
            "sample": dataclasses.asdict(self.sample),
            "prompts": [prompt.id for prompt in self.prompts],
        }

    def _teach(self) -> Generator[RewardReport, None, None]:
        settings, progress, self._whole = self.settings, self._progress, True
        parameters = self._lora.parameters()
        optimizer = Optimizer(self.denoiser, parameters, settings.learning_rate, settings.warmup, settings.grad_clip)
        if progress.done:
            unpack_optimizer(self._tensors, optimizer.adamw, parameters)
        before = self._rewards(self._get_ready())
        check_varied(self.reward, before)
        self._before = float(before.mean())
        try:
            while progress.done < settings.updates and not progress.reason:
                report = self._update(optimizer)
                self._save_now_and_then(optimizer.adamw, parameters)
                yield self._tell(report)
            self._note_sweep()
        finally:
            if self._whole and progress.done:  # else there is nothing to go on with, and it is to lock nobody out
                self._save(optimizer.adamw, parameters)

    def _update(self, optimizer: Optimizer) -> RewardReport:
        """One optimiser step, and measures if it is their turn."""
        done, of = self._progress.done + 1, self.settings.updates
        reward = self._backward(optimizer)
        watches = done % self.settings.watch == 0 or done == of
        if watches and self._progress.done:  # a person may stop while that is measured, and goes on from before then
            self._save(optimizer.adamw, self._lora.parameters())
        self._whole = False
        try:
            norm = optimizer.step(done - 1)
        except D3POError:  # nothing was changed
            self._whole = True
            raise
        report = RewardReport(phase="teach", update=done, total=of, reward=reward, gradient_norm=norm)
        if watches:
            watched, kl = self._measured()
            report = dataclasses.replace(report, watched=watched, kl_base=kl)
        self._progress.done, self._whole = done, True
        return report

    def _measured(self) -> tuple[float, float]:
        """Reward and drift now; too much of that ends the round."""
        watched = float(self._rewards(self._drawn()).mean())
        kl = mean_kl(self.denoiser, self._watched, lambda group: group.guided, self._at_once)
        self._progress.figures = {"reward_before": self._before, "reward": watched, "kl_base": kl.per_image}
        self._watch_drift(kl.per_element, self.settings.drift_limit)
        return watched, kl.per_image

    def _backward(self, optimizer: Optimizer) -> float:
        """The gradient, in smaller parts if memory runs out."""
        gradient = RewardGradient(
            self.model, self.reward, self._plan.steps, self._shape, self.sample.guidance_scale, self.settings
        )
        scenes = self._scenes(self._progress.done)
        while True:
            optimizer.zero_grad()
            try:
                return gradient.backward(scenes, self._progress.done, self._at_once, optimizer.scale)
            except torch.cuda.OutOfMemoryError as error:  # its name in every torch, for all devices
                if self._at_once == 1:
                    raise D3POError(
                        "One picture does not fit in memory.",
                        "Decode in tiles, follow the reward through fewer steps, or draw smaller pictures.",
                        "What was learnt is saved.",
                    ) from error
            self._at_once = max(1, self._at_once // 2)

    def _scenes(self, update: int) -> list[Scene]:
        """What an update draws: all prompts in a shuffled order, before any comes again."""
        found = []
        for number in range(update * self.settings.batch, (update + 1) * self.settings.batch):
            turn, place = divmod(number, len(self.prompts))
            order = torch.randperm(len(self.prompts), generator=generator(self.settings.seed, "prompts", turn))
            prompt = self.prompts[int(order[place])]
            found.append(Scene(prompt.text, self._conditioning(prompt.id), number))
        return found

    @torch.no_grad()
    def _rewards(self, trajectory: Trajectory) -> Tensor:
        latents = self.denoiser.finished(trajectory.latents)
        parts = latents.split(self._at_once)
        images = torch.cat([in_tiles(self.model.decode, part, self.settings.tile) for part in parts])
        return self.reward(images, [prompt.text for prompt in self._shown])
