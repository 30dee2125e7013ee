"""What a round by a reward is, whether it is taught on or finished as it is: how its pictures are drawn, on which
drift is measured, and what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence

import torch

from ..denoiser import size, stack
from ..errors import D3POError
from ..image_model import ImageModel
from ..rollout import CandidateNoise, Trajectory, make_plan, sample
from ..run import Round, Run
from ..settings import LoraSettings, RewardSettings, SampleSettings, check
from .course import Course
from .groups import TrainingGroup
from .reports import Result, RewardReport
from .reward_gradient import Scene, batches
from .state import unpack_parameters

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


class RewardCourse(Course[RewardReport]):
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
        self.settings, self.sample = check(settings), check(sample)
        unfinished = self._unfinished()
        self.resumed = unfinished is not None
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
        rows = self.run.conditioning(prompt_id)
        return {name: value.to(self.denoiser.device) for name, value in rows.items()}

    @torch.no_grad()
    def _drawn(self) -> Trajectory:
        """By the core, not by the host, whose sampling this may be in the middle of."""
        parts: list[Trajectory] = []
        scenes = [Scene(p.text, self._conditioning(p.id), number) for number, p in enumerate(self._shown)]
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
        if run.stopped_round() is None:
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
