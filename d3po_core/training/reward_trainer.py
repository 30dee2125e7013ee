"""What a round by a reward is, whether it is taught on or finished as it is: how its pictures are drawn, on which
drift is measured, and what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..diffusion.denoiser import size, stack
from ..diffusion.image_model import ImageModel
from ..diffusion.rollout import CandidateNoise, Trajectory, generator, make_plan, sample
from ..diffusion.tiled_decoding import decode_in_tiles
from ..errors import D3POError
from ..rewards import Reward, check_varied, require_differentiable
from ..run import Round, Run
from ..settings import LoraSettings, RewardSettings, SampleSettings, validate
from .optimize import LoraOptimizer, unpack_optimizer, unpack_parameters
from .passes import mean_kl
from .reports import Result, RewardReport
from .reward_gradient import PromptSample, RewardGradient, batches
from .round_trainer import RoundTrainer
from .rows import TrainingGroup

FREE_TO_CHANGE = ("micro_batch", "checkpointing", "tile")
"""Settings that an interrupted round takes anew: they change memory, and hardly anything else."""
WATCHED = 8
"""Pictures that are drawn again and again to see the reward."""
DRIFTING = 4
"""Those of them whose steps drift is measured on; it has no noise of its own."""
LOWEST_SIGMA = 0.3
"""Noise to signal down to which drift is measured. A reward's gradient comes through the last steps and changes these
most: to the early ones, which picks are about, the model may seem as it was. In the very last ones the sampler's own
noise goes to 0, and any difference at all to infinity."""


class RewardCourse(RoundTrainer[RewardReport]):
    """See `RewardTrainer` and `StoppedReward`."""

    KIND = "reward"
    reward_name: str
    """What the round learns from, for people."""

    def __init__(
        self,
        run: Run,
        model: ImageModel,
        settings: RewardSettings,
        lora_settings: LoraSettings,
        sample: SampleSettings,
        attachment: str,
        prompts: Sequence[int] = (),
    ) -> None:
        super().__init__(run, model.denoiser, lora_settings, attachment)
        self.model = model
        self.settings, self.sample = validate(settings), validate(sample)
        unfinished = self._unfinished()
        self.resumed = unfinished is not None
        wanted = unfinished.settings["prompts"] if unfinished else prompts
        meant = [prompt for prompt in run.prompts.all() if (prompt.id in wanted if wanted else prompt.asked)]
        self.prompts = [prompt for prompt in meant if run.prompts.has_conditioning(prompt.id)]
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

    def _resume(self, unfinished: Round) -> None:
        """With what it was begun, but in the memory that is given now."""
        stored = unfinished.settings
        as_now = {name: getattr(self.settings, name) for name in FREE_TO_CHANGE}
        self.settings = RewardSettings(**{**stored["reward"], **as_now})
        self.lora_settings, self.sample = LoraSettings(**stored["lora"]), SampleSettings(**stored["sample"])
        self.round, self._start = unfinished.number, stored["start"]

    def _seed(self) -> int:
        return self.settings.seed

    @torch.no_grad()
    def _get_ready(self) -> Trajectory:
        """How pictures are drawn; the watched ones by the base, on whose steps drift is measured."""
        self._plan = make_plan(self.denoiser, self.sample)
        lowest = min(self.sample.window_sigma, LOWEST_SIGMA)
        watched = dataclasses.replace(self.sample, window="early", window_sigma=lowest, eta=1.0)  # else KL has no scale
        self._watch_plan = make_plan(self.denoiser, watched)
        self._shape = self.model.latent_shape(self.sample.height, self.sample.width)
        self._at_once = self.settings.micro_batch or self.settings.batch
        self._shown = [self.prompts[i % len(self.prompts)] for i in range(WATCHED)]
        self._shown.sort(key=lambda prompt: str(size(self._conditioning(prompt.id))))  # those of one batch together
        with self._lora.off():
            trajectory = self._drawn()
        steps = self._watch_plan.steps[slice(self._watch_plan.trained)]
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
            for i, prompt in enumerate(self._shown[:DRIFTING])
        ]
        return trajectory

    def _note_sweep(self) -> None:
        """Drift at every strength, of the LoRA as it is."""
        kept = self._lora.weights()
        self._progress.sweep = self._swept(kept, self._watched, lambda group: group.guided, self._at_once)

    def _conditioning(self, prompt_id: int) -> dict[str, torch.Tensor]:
        rows = self.run.prompts.conditioning(prompt_id)
        return {name: value.to(self.denoiser.device) for name, value in rows.items()}

    @torch.no_grad()
    def _drawn(self) -> Trajectory:
        """By the core, not by the host, whose sampling this may be in the middle of."""
        parts: list[Trajectory] = []
        scenes = [PromptSample(p.text, self._conditioning(p.id), number) for number, p in enumerate(self._shown)]
        for part in batches(scenes, self._at_once):
            noises = [CandidateNoise(self.settings.seed, scene.number, 0, self._shape, "same") for scene in part]
            rows = stack([scene.conditioning for scene in part])
            parts.append(sample(self.denoiser, self._watch_plan, noises, rows, self.sample.guidance_scale))
        names = [item.name for item in dataclasses.fields(Trajectory)]
        return Trajectory(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


class StoppedReward(RewardCourse):
    """A stopped round, to be made a LoRA of as it is. It takes no reward: whose file is gone loses nothing.

    Args:
        run: with the round.
        model: the base model.
        memory: its settings of memory count, no others.
        attachment: see `Course`.

    Raises:
        D3POError: no round by a reward was stopped.
    """

    def __init__(self, run: Run, model: ImageModel, memory: RewardSettings, attachment: str = "peft") -> None:
        if run.rounds.stopped() is None:
            raise D3POError("No round of this taste was stopped in the middle.", "There is nothing to finish.")
        super().__init__(run, model, memory, LoraSettings(), SampleSettings(), attachment)

    def _begin_or_resume(self) -> None:
        unfinished = self._unfinished()
        assert unfinished is not None
        self.reward_name = unfinished.settings["reward_name"]
        self._resume(unfinished)

    def _teach(self) -> Generator[RewardReport, None, None]:
        """Nothing more; the drift of what was learnt."""
        unpack_parameters(self._tensors, self._lora.parameters())
        self._get_ready()
        self._note_sweep()
        yield from ()


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
            self._start = self.run.rounds.current_policy()
            self.round = self.run.rounds.begin(self._stored(), "base", anew=True, by_picks=False)
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
        optimizer = LoraOptimizer(
            self.denoiser, parameters, settings.learning_rate, settings.warmup, settings.grad_clip
        )
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

    def _update(self, optimizer: LoraOptimizer) -> RewardReport:
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

    def _backward(self, optimizer: LoraOptimizer) -> float:
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

    def _scenes(self, update: int) -> list[PromptSample]:
        """What an update draws: all prompts in a shuffled order, before any comes again."""
        found = []
        for number in range(update * self.settings.batch, (update + 1) * self.settings.batch):
            turn, place = divmod(number, len(self.prompts))
            order = torch.randperm(len(self.prompts), generator=generator(self.settings.seed, "prompts", turn))
            prompt = self.prompts[int(order[place])]
            found.append(PromptSample(prompt.text, self._conditioning(prompt.id), number))
        return found

    @torch.no_grad()
    def _rewards(self, trajectory: Trajectory) -> Tensor:
        latents = self.denoiser.finished(trajectory.latents)
        parts = latents.split(self._at_once)
        images = torch.cat([decode_in_tiles(self.model.decode, part, self.settings.tile) for part in parts])
        return self.reward(images, [prompt.text for prompt in self._shown])
