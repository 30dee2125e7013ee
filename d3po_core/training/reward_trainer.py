"""One round that learns from a differentiable reward: DRaFT, DRaFT-K, DRaFT-LV or ReFL (see diffusion/draft.py).

A reward that is climbed too far ruins images. So drift from the base model is measured during training, which ends at a
limit, and afterwards the LoRA is tried at several strengths, of which the greatest without high drift is recommended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning, size, stack
from ..diffusion.image_model import ImageModel, check_finite
from ..diffusion.rollout import CandidateNoise, Trajectory, generator, make_plan, sample
from ..diffusion.tiled_decoding import decode_in_tiles
from ..errors import D3POError, unbroken
from ..processes import ALONE, Message, Processes
from ..rewards import Reward, check_varied, require_differentiable
from ..run import Run
from ..run.prompts import Prompt
from ..settings import LoraSettings, RewardSettings, SampleSettings, from_stored, validate
from .passes import LoraOptimizer, mean_kl, unpack_optimizer, unpack_parameters
from .reports import RewardReport, RoundResult
from .reward_gradient import PromptSample, RewardGradient, batches
from .round_trainer import OpenRound, RoundPlan, RoundTrainer, open_round, opening, stopped_round
from .rows import TrainingGroup

FREE_TO_CHANGE = ("micro_batch", "checkpointing", "tile")
"""Settings that an interrupted round takes anew: they change memory, and hardly anything else."""
WATCHED = 8
"""Images that are drawn again and again to see the reward."""
DRIFTING = 4
"""Those of them whose steps drift is measured on; it has no noise of its own."""
LOWEST_SIGMA = 0.3
"""Noise to signal down to which drift is measured. A reward's gradient comes through the last steps and changes these
most: to the early ones, which picks are about, the model may seem as it was. In the very last ones the sampler's own
noise goes to 0, and any difference at all to infinity."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardPlan(RoundPlan):
    """The plan of a round that learns from a reward.

    Attributes:
        sample: how images are drawn.
        written: the reward as a person names it, see `Reward.written`.
        prompts: those to draw for, each encoded; at least one.
    """

    KIND = "reward"
    settings: RewardSettings
    sample: SampleSettings
    written: str
    prompts: list[Prompt]

    def to_json(self) -> dict[str, object]:
        """Return what a run keeps of the plan."""
        return {
            **super().to_json(),
            "reward_name": self.reward_name,
            "written": self.written,
            "sample": dataclasses.asdict(self.sample),
            "prompts": [prompt.id for prompt in self.prompts],
        }


class WatchedImages:
    """Images that are drawn again and again, from the same noises: what a reward says of them, and how far the steps of
    the first few have drifted.
    """

    def __init__(self, run: Run, model: ImageModel, plan: RewardPlan) -> None:
        self._run, self._model, self._plan = run, model, plan
        lowest = min(plan.sample.window_sigma, LOWEST_SIGMA)
        watched = dataclasses.replace(plan.sample, window="early", window_sigma=lowest, eta=1.0)  # else KL has no scale
        self._steps = make_plan(model.denoiser, watched)
        self._shape = model.latent_shape(plan.sample.height, plan.sample.width)
        prompts = [plan.prompts[i % len(plan.prompts)] for i in range(WATCHED)]
        # Those of one batch together.
        self.prompts = sorted(prompts, key=lambda prompt: str(size(self.conditioning(prompt.id))))

    def conditioning(self, prompt_id: int) -> Conditioning:
        """Return a prompt's conditioning, one row, on the model's device."""
        rows = self._run.prompts.conditioning(prompt_id)
        return {name: value.to(self._model.denoiser.device) for name, value in rows.items()}

    @torch.no_grad()
    def draw(self, batch: int) -> Trajectory:
        """Draw them by the active policy: by the core, not by the host, whose sampling this may be in the middle of."""
        parts: list[Trajectory] = []
        samples = [PromptSample(p.text, self.conditioning(p.id), number) for number, p in enumerate(self.prompts)]
        seed, guidance = self._plan.settings.seed, self._plan.sample.guidance_scale
        for part in batches(samples, batch):
            noises = [CandidateNoise(seed, each.number, 0, self._shape, "same") for each in part]
            rows = stack([each.conditioning for each in part])
            parts.append(sample(self._model.denoiser, self._steps, noises, rows, guidance))
        names = [item.name for item in dataclasses.fields(Trajectory)]
        return Trajectory(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    @torch.no_grad()
    def scores(self, trajectory: Trajectory, reward: Reward, batch: int) -> Tensor:
        """Return the reward of each image, (WATCHED,)."""
        tile = self._plan.settings.tile
        latents = check_finite(self._model.denoiser.finished(trajectory.latents), "network")
        images = torch.cat([decode_in_tiles(self._model.decode, part, tile) for part in latents.split(batch)])
        return reward(check_finite(images, "VAE"), [prompt.text for prompt in self.prompts])

    def groups(self, base: Trajectory) -> list[TrainingGroup]:
        """Return the steps on which drift is measured, a group for each of `DRIFTING` images.

        Args:
            base: the images as the base model drew them.
        """
        steps = self._steps.steps[slice(self._steps.trained)]
        return [
            TrainingGroup(
                id=f"watched {i}",
                pairs=[],
                scores=[0.0],
                steps=steps,
                x=base.x[i : i + 1].cpu(),
                cond=base.cond[i : i + 1].cpu(),
                guided=base.guided[i : i + 1].cpu(),
                latents=self._model.denoiser.finished(base.latents[i : i + 1]).cpu(),
                policy="base",
                conditioning=self.conditioning(prompt.id),
                guidance_scale=self._plan.sample.guidance_scale,
            )
            for i, prompt in enumerate(self.prompts[:DRIFTING])
        ]


class RewardTrainer(RoundTrainer):
    """A round that learns from a reward; see `RewardTrainer.open` and `RewardTrainer.open_stopped`."""

    def __init__(self, run: Run, model: ImageModel, plan: RewardPlan, reward: Reward | None, opened: OpenRound) -> None:
        super().__init__(run, model.denoiser, plan, opened)
        self.model, self.reward, self._plan = model, reward, plan
        self.settings, self.sample = plan.settings, plan.sample
        self.prompts = plan.prompts
        self._watched = WatchedImages(run, model, plan)
        self._steps = make_plan(model.denoiser, plan.sample).steps
        self._shape = model.latent_shape(plan.sample.height, plan.sample.width)
        self._batch = plan.settings.micro_batch or plan.settings.batch
        self._resumable = True  # False between a step of the optimiser and what is measured after it

    @classmethod
    def open(
        cls,
        run: Run,
        model: ImageModel,
        reward: Reward,
        settings: RewardSettings,
        lora_settings: LoraSettings,
        sample: SampleSettings,
        attachment: str = "peft",
        prompts: Sequence[int] = (),
        processes: Processes = ALONE,
    ) -> RewardTrainer:
        """Begin a round, or take up the one that was interrupted, which goes on with what it was begun with.

        Args:
            run: its prompts are what is drawn for; it needs no picks.
            model: the base model. Its decoder must pass gradients on.
            reward: differentiable.
            settings, lora_settings: how.
            sample: how images are drawn.
            attachment: "peft" for diffusers modules, "hooks" for modules that a host owns.
            prompts: ids of those to draw for; if none are named, all that are encoded and did not just come with
                imported images.
            processes: which train it together; see `app.handing_over` for how all of them open the run.

        Raises:
            D3POError: settings out of range, a reward that is not differentiable or not that of the interrupted round,
                a run without prompts, or another trainer at work on the run.
        """
        require_differentiable(reward)
        validate(settings)
        validate(lora_settings)
        validate(sample)
        with opening(run, processes) as exit:
            stopped = stopped_round(run, RewardPlan.KIND) if processes.first else None
            if stopped is None and processes.first:
                plan = _begun(run, reward, settings, lora_settings, sample, prompts)
                number = run.rounds.begin(plan.to_json(), "base", anew=True, by_picks=False)
            elif stopped is not None:
                plan, number = _resumed(run, stopped.settings, settings), stopped.number
                _refuse_another_reward(number, plan, reward)
            facts = (number, plan.to_json(), stopped is not None) if processes.first else (0, {}, False)
            number, stored, resumed = processes.share_facts(facts)
            if not processes.first:
                plan = _resumed(run, stored)
            opened = open_round(
                run,
                model.denoiser,
                number,
                plan,
                resumed=resumed,
                attachment=attachment,
                exit=exit,
                processes=processes,
            )
            return cls(run, model, plan, reward, opened)

    @classmethod
    def open_stopped(
        cls, run: Run, model: ImageModel, memory: RewardSettings, attachment: str = "peft"
    ) -> RewardTrainer:
        """Take up a round that was interrupted, to make a LoRA of it as it is.

        It needs no reward, so that nothing is lost where the reward's file is gone.

        Args:
            run, model, attachment: see `open`.
            memory: its settings of memory count, no others.

        Raises:
            D3POError: no round by a reward was interrupted, or another trainer is at work on the run.
        """
        with opening(run) as exit:
            stopped = stopped_round(run, RewardPlan.KIND)
            if stopped is None:
                raise D3POError("No round of this taste was stopped in the middle.", "There is nothing to finish.")
            plan, number = _resumed(run, stopped.settings, memory), stopped.number
            opened = open_round(run, model.denoiser, number, plan, resumed=False, attachment=attachment, exit=exit)
            return cls(run, model, plan, None, opened)

    @property
    def trained_on(self) -> list[str]:
        """Return no ids of groups: images are drawn anew for every update."""
        return []

    def result(self) -> RoundResult:
        """Return what was learnt so far."""
        ended = self.state.done >= self.settings.updates
        return RoundResult(
            round=self.round,
            weights=self._lora.weights(),
            strength_scan=tuple(self.state.strength_scan),
            figures=self.state.figures,
            reason=self.state.reason or ("Every update was made." if ended else "Stopped before the end."),
        )

    def steps(self) -> Generator[RewardReport, None, None]:
        """Train and report after every update; see `RoundTrainer.steps`. Without a reward only drift is measured."""
        parameters, settings = self._lora.parameters(), self.settings
        optimizer = LoraOptimizer(
            self.denoiser, parameters, settings.learning_rate, settings.warmup, settings.grad_clip
        )
        if self.reward is None:
            unpack_parameters(self._saved.tensors, parameters)
        elif self.state.done:
            unpack_optimizer(self._saved.tensors, optimizer.adamw, parameters)
        with self._lora.off():
            base = self._watched.draw(self._batch)
        groups = self._watched.groups(base)
        if self.reward is None:
            self._scan(groups)
            return
        before = self._watched.scores(base, self.reward, self._batch)
        check_varied(self.reward, before)
        try:
            while self.state.done < settings.updates and not self.state.reason:
                report = self._update(optimizer, self.reward, float(before.mean()), groups)
                self.save_state_when_due(optimizer.adamw, parameters)
                yield self.log(report)
            self._scan(groups)
        finally:
            if self._resumable and self.state.done:  # else there is nothing to go on with, and it is to lock nobody out
                self.save_state(optimizer.adamw, parameters)

    def _scan(self, groups: list[TrainingGroup]) -> None:
        """Note drift at every strength, of the LoRA as it is."""
        weights = self._lora.weights()
        self.state.strength_scan = self.scan_strengths(weights, groups, lambda group: group.guided, self._batch)

    def _update(
        self, optimizer: LoraOptimizer, reward: Reward, before: float, groups: list[TrainingGroup]
    ) -> RewardReport:
        """Take one step of the optimiser, and measure if it is time.

        Args:
            before: mean reward of the watched images by the base model.
            groups: on which drift is measured.
        """
        done, total = self.state.done + 1, self.settings.updates
        mean = self._backward(optimizer, reward)
        watches = done % self.settings.watch == 0 or done == total
        if watches and self.state.done:  # a person may stop while that is measured, and goes on from before then
            self.save_state(optimizer.adamw, self._lora.parameters())
        self._resumable = False
        with unbroken():  # half a step could not be gone on from
            try:
                norm = optimizer.step(done - 1)
            except D3POError:  # nothing was changed
                self._resumable = True
                raise
            if not watches:
                self.state.done, self._resumable = done, True
        report = RewardReport(update=done, total=total, reward_name=reward.name, reward=mean, gradient_norm=norm)
        if watches:
            report = self._measured(report, reward, before, groups)
        self.state.done, self._resumable = done, True
        return report

    def _measured(
        self, report: RewardReport, reward: Reward, before: float, groups: list[TrainingGroup]
    ) -> RewardReport:
        """Return the report with reward and drift as they are now; too much drift ends the round."""
        found = [0.0, 0.0, 0.0]
        if self.processes.first:
            watched = float(self._watched.scores(self._watched.draw(self._batch), reward, self._batch).mean())
            kl = mean_kl(self.denoiser, groups, lambda group: group.guided, self._batch)
            found = [watched, kl.per_image, kl.per_element]
        watched, per_image, per_element = self.processes.share_facts(found)
        self.state.figures = {"reward_before": before, "reward": watched, "kl_base": per_image}
        self.watch_drift(per_element, self.settings.drift_limit)
        return dataclasses.replace(report, watched=watched, kl_base=per_image)

    def _backward(self, optimizer: LoraOptimizer, reward: Reward) -> float:
        """Add up the gradient, in smaller parts if memory runs out, and return the mean reward."""
        gradient = RewardGradient(
            self.model, reward, self._steps, self._shape, self.sample.guidance_scale, self.settings
        )
        samples = self._samples(self.state.done)
        while True:
            optimizer.zero_grad()
            try:
                how = (self.state.done, self._batch, optimizer.scale, len(samples))
                rewards = gradient.backward(self.processes.mine(samples), *how)
                break
            except torch.cuda.OutOfMemoryError as error:  # its name in every torch, for all devices
                if self._batch == 1:
                    raise D3POError(
                        "One picture does not fit in memory.",
                        "Decode in tiles, follow the reward through fewer steps, or draw smaller pictures.",
                        "What was learnt is saved.",
                    ) from error
            self._batch = max(1, self._batch // 2)
        optimizer.add_up(self.processes)
        if self.processes.size > 1:
            rewards = [value for message in self.processes.gather(Message(rewards)) for value in message.facts]  # type: ignore[attr-defined]
        return sum(rewards) / len(rewards)

    def _samples(self, update: int) -> list[PromptSample]:
        """Return what an update draws: all prompts in a shuffled order, before any comes again."""
        samples = []
        for number in range(update * self.settings.batch, (update + 1) * self.settings.batch):
            turn, place = divmod(number, len(self.prompts))
            order = torch.randperm(len(self.prompts), generator=generator(self.settings.seed, "prompts", turn))
            prompt = self.prompts[int(order[place])]
            samples.append(PromptSample(prompt.text, self._watched.conditioning(prompt.id), number))
        return samples


def _begun(
    run: Run,
    reward: Reward,
    settings: RewardSettings,
    lora_settings: LoraSettings,
    sample: SampleSettings,
    prompts: Sequence[int],
) -> RewardPlan:
    """Return the plan of a new round; the arguments are those of `RewardTrainer.open`."""
    return RewardPlan(
        settings=settings,
        lora_settings=lora_settings.with_targets("attention"),
        start=run.rounds.current_policy(),
        sample=sample,
        reward_name=reward.name,
        written=reward.written,
        prompts=_encoded(run, [p for p in run.prompts.all() if (p.id in prompts if prompts else p.asked)]),
    )


def _refuse_another_reward(number: int, plan: RewardPlan, reward: Reward) -> None:
    if plan.reward_name != reward.name:
        raise D3POError(
            f"Round {number} of this taste was stopped in the middle of learning from '{plan.reward_name}'.",
            "Go on with that reward, or finish the round as it is, first.",
            "What it has learnt is saved.",
        )


def _encoded(run: Run, prompts: list[Prompt]) -> list[Prompt]:
    """Return the prompts that have their conditioning, at least one."""
    usable = [prompt for prompt in prompts if run.prompts.has_conditioning(prompt.id)]
    if not usable:
        raise D3POError("This taste has no prompts yet.", "Draw some pictures for it first.")
    return usable


def _resumed(run: Run, stored: dict[str, object], now: RewardSettings | None = None) -> RewardPlan:
    """Return the plan that an interrupted round was begun with, with today's settings of memory, if there are any."""
    as_now = {name: getattr(now, name) for name in FREE_TO_CHANGE} if now else {}
    sections: dict[str, dict[str, object]] = {name: dict(stored[name]) for name in ("reward", "lora", "sample")}  # type: ignore[call-overload]
    ids: list[int] = stored["prompts"]  # type: ignore[assignment]
    return RewardPlan(
        settings=from_stored(RewardSettings, {**sections["reward"], **as_now}),
        lora_settings=from_stored(LoraSettings, sections["lora"]),
        sample=from_stored(SampleSettings, sections["sample"]),
        reward_name=str(stored["reward_name"]),
        written=str(stored.get("written", "")),
        prompts=_encoded(run, [prompt for prompt in run.prompts.all() if prompt.id in ids]),
        start=str(stored["start"]),
    )
