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

from ..denoiser import size, stack
from ..errors import D3POError
from ..image_model import ImageModel
from ..rewards import Reward, check_varied, require_differentiable
from ..rollout import CandidateNoise, Trajectory, generator, make_plan, sample
from ..run import Run
from ..settings import LoraSettings, RewardSettings, SampleSettings, check
from ..tiles import in_tiles
from .course import Course
from .groups import TrainingGroup
from .optimizer import Optimizer
from .passes import mean_kl
from .reports import Result, RewardReport
from .reward_gradient import RewardGradient, Scene, batches
from .state import unpack_optimizer

FREE_TO_CHANGE = ("micro_batch", "checkpointing", "tile")
"""Settings that an interrupted round takes anew: they change memory, and hardly anything else."""
WATCHED = 8
"""Pictures that are drawn again and again to see reward and drift."""


class RewardTrainer(Course[RewardReport]):
    """Teaches one round by a reward, see `Course`.

    Args:
        run: its prompts are what is drawn for; it needs no picks.
        model: the base model. Its decoder must pass gradients on.
        reward: differentiable.
        settings: how. An interrupted round goes on with those that it was begun with.
        sample: how pictures are drawn.
        prompts: ids of those to draw for; if none are named, all that are encoded and did not just come with imported
            pictures. An interrupted round goes on with those that it was begun with.
        written: what the reward was asked for with, kept so that it can be loaded again.

    Raises:
        D3POError: settings out of range, a reward that is not differentiable, or a run without prompts.
    """

    KIND = "reward"

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
        written: str = "",
    ) -> None:
        super().__init__(run, model.denoiser, lora_settings, attachment)
        self.model, self.reward, self.written = model, require_differentiable(reward), written
        self.settings, self.sample = check(settings), check(sample)
        unfinished = self._unfinished()
        self.resumed = unfinished is not None
        if unfinished and unfinished.settings["reward_name"] != reward.name:
            raise D3POError(
                f"Round {unfinished.number} of this taste was stopped in the middle of learning from "
                f"'{unfinished.settings['reward_name']}'.",
                "Go on with that reward, or finish the round as it is, first.",
                "What it has learnt is saved.",
            )
        wanted = unfinished.settings["prompts"] if unfinished else prompts
        meant = [prompt for prompt in run.prompts() if (prompt.id in wanted if wanted else prompt.asked)]
        self.prompts = [prompt for prompt in meant if run.has_conditioning(prompt.id)]
        if not self.prompts:
            raise D3POError("This taste has no prompts yet.", "Draw some pictures for it first.")

    @property
    def trained_on(self) -> list[str]:
        """None: pictures are drawn for every update anew."""
        return []

    def result(self) -> Result:
        """What was learnt when `steps` ended or was closed."""
        progress = self._progress
        ended = progress.done >= self.settings.updates
        return Result(
            round=self.round,
            weights=self._learnt,
            strength=1.0,
            z=None,
            guessed=0,
            guessed_of=0,
            curve=[],
            sweep=progress.sweep,
            figures=progress.figures,
            reason=progress.reason or ("Every update was made." if ended else "Stopped before the end."),
        )

    def _begin_or_resume(self) -> None:
        unfinished = self._unfinished()
        if unfinished is None:
            self._start = self.run.current_policy()
            self.round = self.run.begin_round(self._stored(), "base", anew=True, by_picks=False)
        else:
            stored = unfinished.settings
            as_now = {name: getattr(self.settings, name) for name in FREE_TO_CHANGE}
            self.settings = RewardSettings(**{**stored["reward"], **as_now})
            self.lora_settings, self.sample = LoraSettings(**stored["lora"]), SampleSettings(**stored["sample"])
            self.round, self._start = unfinished.number, stored["start"]
        self._note(reward=dataclasses.asdict(self.settings))

    def _stored(self) -> dict[str, Any]:
        return {
            **{"reward": dataclasses.asdict(self.settings), "reward_name": self.reward.name, "written": self.written},
            **{"lora": dataclasses.asdict(self.lora_settings), "start": self._start},
            "sample": dataclasses.asdict(self.sample),
            "prompts": [prompt.id for prompt in self.prompts],
        }

    def _seed(self) -> int:
        return self.settings.seed

    def _teach(self) -> Generator[RewardReport, None, None]:
        settings, progress = self.settings, self._progress
        self._plan = make_plan(self.denoiser, self.sample)
        self._shape = self.model.latent_shape(self.sample.height, self.sample.width)
        self._at_once, self._whole = settings.micro_batch or settings.batch, True
        parameters = self._lora.parameters()
        optimizer = Optimizer(self.denoiser, parameters, settings.learning_rate, settings.warmup, settings.grad_clip)
        if progress.done:
            unpack_optimizer(self._tensors, optimizer.adamw, parameters)
        self._watch_base()
        try:
            while progress.done < settings.updates and not progress.reason:
                report = self._update(optimizer)
                self._save_now_and_then(optimizer.adamw, parameters)
                yield self._tell(report)
            kept = self._lora.weights()
            progress.sweep = self._swept(kept, self._watched, lambda group: group.guided, self._at_once)
        finally:
            if self._whole:
                self._save(optimizer.adamw, parameters)

    def _update(self, optimizer: Optimizer) -> RewardReport:
        """One optimiser step, and measures if it is their turn."""
        done, of = self._progress.done + 1, self.settings.updates
        reward = self._backward(optimizer)
        watches = done % self.settings.watch == 0 or done == of
        if watches:  # a person may stop while that is measured, and goes on from before this update then
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
        watched = self._watched_reward()
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

    def _conditioning(self, prompt_id: int) -> dict[str, torch.Tensor]:
        rows = self.run.conditioning(prompt_id)
        return {name: value.to(self.denoiser.device) for name, value in rows.items()}

    # -- watching ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _watch_base(self) -> None:
        """The base model's pictures of a few prompts: on their steps drift is measured, on their noises the reward."""
        self._shown = [self.prompts[i % len(self.prompts)] for i in range(WATCHED)]
        self._shown.sort(key=lambda prompt: str(size(self._conditioning(prompt.id))))  # those of one batch together
        with self._lora.off():
            trajectory = self._drawn()
            before = self._rewards(trajectory)
        check_varied(self.reward, before)
        self._before = float(before.mean())
        steps = self._plan.steps[slice(self._plan.trained)]
        self._watched = [
            TrainingGroup(
                id=f"watched {i}",
                pairs=[],
                scores=[0.0],
                steps=steps,
                x=trajectory.x[i : i + 1].cpu(),
                cond=trajectory.cond[i : i + 1].cpu(),
                guided=trajectory.guided[i : i + 1].cpu(),
                latents=self.denoiser.finished(trajectory.latents[i : i + 1]).cpu(),
                policy="base",
                conditioning=self._conditioning(prompt.id),
                guidance_scale=self.sample.guidance_scale,
            )
            for i, prompt in enumerate(self._shown)
        ]

    @torch.no_grad()
    def _watched_reward(self) -> float:
        """Mean reward of the policy as it is now, on the watched prompts and noises."""
        return float(self._rewards(self._drawn()).mean())

    def _drawn(self) -> Trajectory:
        """By the core, not by the host, whose sampling this may be in the middle of."""
        parts: list[Trajectory] = []
        scenes = [Scene(p.text, self._conditioning(p.id), number) for number, p in enumerate(self._shown)]
        for part in batches(scenes, self._at_once):
            noises = [CandidateNoise(self.settings.seed, scene.number, 0, self._shape, "same") for scene in part]
            rows = stack([scene.conditioning for scene in part])
            parts.append(sample(self.denoiser, self._plan, noises, rows, self.sample.guidance_scale))
        names = [item.name for item in dataclasses.fields(Trajectory)]
        return Trajectory(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def _rewards(self, trajectory: Trajectory) -> Tensor:
        latents = self.denoiser.finished(trajectory.latents)
        parts = latents.split(self._at_once)
        images = torch.cat([in_tiles(self.model.decode, part, self.settings.tile) for part in parts])
        return self.reward(images, [prompt.text for prompt in self._shown])
