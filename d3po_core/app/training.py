"""A round of training in every front end: asked for, trained to its end, a pause or a stop, and said what came out.

What is asked for is a new round, one that was stopped and goes on, or one to be finished as it is.
"""

from __future__ import annotations

import dataclasses
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..diffusion.image_model import ImageModel
from ..errors import D3POError
from ..evaluation.compare import STRENGTHS, drift_word, recommended_strength
from ..evaluation.effect import Limits, draw_previews
from ..evaluation.evaluate import Show
from ..lora.weights import scale_weights
from ..picks import MIN_PICKS
from ..processes import ALONE, Processes
from ..rewards import Reward, get_reward, require_differentiable
from ..rewards.description import Looked
from ..rewards.features import NETWORK, Features
from ..rewards.judge import fit_judge, load_judge_reward, own_judge, save_judge
from ..rewards.spec import canonical
from ..run import Round, RoundSummary, Run
from ..run.panel import Panel
from ..settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings, from_stored, listed
from ..training.methods import needs_recording
from ..training.reports import Report
from ..training.reward_trainer import RewardTrainer
from ..training.round_trainer import RoundTrainer, SavedRound, save_round
from ..training.trainer import Trainer
from .cost import teaching_memory
from .loras import scale_lora
from .runs import lora_settings, prompts_to_draw, sample_settings, train_settings
from .sampling import add_prompts


class Next(enum.Enum):
    """What to do after an update."""

    CONTINUE = enum.auto()
    FINISH = enum.auto()
    """Save what was learnt so far, and close the round."""
    PAUSE = enum.auto()
    """Keep the state; another trainer goes on from there."""


def train_round(trainer: RoundTrainer, after_update: Callable[[Report], Next]) -> SavedRound | None:
    """Train until the round ends or `after_update` says otherwise, then save its LoRA.

    An exception, also one of `after_update`'s, leaves the round as `Next.PAUSE` does.

    Args:
        trainer: open; it is closed afterwards.
        after_update: called with the report of every update.

    Returns:
        The saved round, or None if training was paused, and in all but the first of several processes.
    """
    processes = trainer.processes
    with trainer:
        with closing(trainer.steps()) as reports:
            for report in reports:
                decision = Next[processes.share_facts(after_update(report).name)]
                if decision is Next.PAUSE:
                    return None
                if decision is Next.FINISH:
                    break
        return save_round(trainer) if processes.first else None


RESUMED = "It went on as it was begun: changed settings, prompts and new picks are for the next round."


def why_not_train(run: Run, settings: TrainSettings | None) -> str:
    """Return why there is nothing to learn from; "" if there is.

    Args:
        run: with picks.
        settings: that it is trained with; None if no trainer has said so yet.
    """
    method, people = None if settings is None else settings.method, Panel.of(run, settings).people
    recorded = needs_recording(method)
    usable, of_all_methods = run.picks.counts("", recorded, people).usable, run.picks.counts("", False, people).usable
    if usable < MIN_PICKS:
        more = of_all_methods - usable
        others = f"{more} more are of imported pictures, which {method} cannot learn from, as diffusion-nft can"
        waiting = waiting_for_picks(usable) if people is None else f"{waiting_for_picks(usable)} by {listed(people)}"
        return f"{waiting}; {others}" if more else waiting
    return "" if run.picks.untaught(recorded, people) else "Nothing new to teach: pick some more."


def has_round_to_go_on_with(run: Run) -> bool:
    """Return whether Teach goes on with a round, whatever new picks there are.

    That is one that was stopped, or one by picks that failed before it had learnt anything: its picks count as taught,
    and it is begun anew.
    """
    begun = run.rounds.open()
    return begun is not None and ("train" in begun.settings or run.rounds.stopped() is not None)


def waiting_for_picks(usable: int) -> str:
    """Return how many picks there are, and are needed."""
    return f"Waiting for picks: {usable} of {MIN_PICKS}"


def settle_round(
    run: Run,
    model: ImageModel,
    saved: SavedRound,
    settings: SampleSettings,
    attachment: str,
    show: Show,
    decodes: bool = True,
    others: Sequence[Features] = (),
) -> SavedRound:
    """Draw pictures before and after a finished round, and let its LoRA be as strong as its limits allow.

    Args:
        run: the run.
        model: the base model.
        saved: the round.
        settings: as the run is sampled.
        attachment: how a LoRA is attached to this model, "peft" or "hooks".
        show: see `Show`.
        decodes: see `draw_previews`.
        others: as in `PicksRequest`.

    Returns:
        The round with the file to use, and with what the pictures tell.
    """
    result, number = saved.result, saved.result.round
    if not result.changed:  # before and after are the same
        return saved
    limits = Limits(saved.settings.keep_prompt, dict(result.strength_scan), saved.settings.drift_limit)
    try:
        effect = draw_previews(run, model, number, result.weights, settings, attachment, show, limits, decodes)
    except BaseException:  # stopped, or out of memory: what is known of drift counts all the same
        strength = next((each for each in STRENGTHS if limits.allow(each, None)), STRENGTHS[-1])
        if strength < 1:
            scale_lora(run, number, strength)
        raise
    path, weights = saved.path, result.weights
    if effect.strength < 1:
        path, weights = scale_lora(run, number, effect.strength), scale_weights(weights, effect.strength)
    run.rounds.note_effect(number, effect.kept, None)  # what is stopped from here on loses the estimate only
    win = None
    if result.strength == 1 and not saved.reward_name:  # from thin evidence no more is to be expected than was taught
        panel = Panel.of(run, saved.settings if isinstance(saved.settings, TrainSettings) else None)
        judge = own_judge(run, [NETWORK, *(kind.name for kind in others)], panel)
        win = effect.win(judge, others) if judge else None
        run.rounds.note_effect(number, effect.kept, win)
    result = dataclasses.replace(result, weights=weights, kept=effect.kept, win=win, lora_strength=effect.strength)
    return dataclasses.replace(saved, result=result, path=path)


MOVED = 0.55
"""Share of new pictures that the judge must expect to be preferred; below, nothing was moved to speak of."""


def round_outcome(saved: SavedRound) -> str:
    """Return what came out of a round, in a few sentences."""
    result, parts = saved.result, list[str]()
    if saved.reward_name:
        if result.figures:
            before, after = result.figures["reward_before"], result.figures["reward"]
            parts.append(f"Mean {saved.reward_name} went from {before:.4g} to {after:.4g}.")
        if result.strength_scan and not result.kept:
            strength, (_, drift) = recommended_strength(result.strength_scan), result.strength_scan[0]
            weaker = "" if strength == 1 else f": use the LoRA at strength {strength:g}"
            parts.append(f"Drift from the original is {drift_word(drift)}{weaker}.")
    elif result.guessed_of:
        share = result.guessed / result.guessed_of
        parts.append(f"Of {result.guessed_of} picks it had not seen it predicted {share:.0%} right (chance: 50%).")
    else:
        parts.append("There were too few picks to hide some, so how well the taste was understood is unknown.")
    parts += effect_in_words(result)
    begin = "Taught." if result.changed else "Nothing was taught."
    return " ".join([begin, *parts, result.reason, *([RESUMED] if saved.resumed else [])]).strip()


def effect_in_words(summary: RoundSummary) -> list[str]:
    """Return what the pictures before and after tell of a round, a sentence each; nothing if none were drawn."""
    sentences = []
    if summary.win is not None and summary.win < MOVED and summary.lora_strength == 1:
        sentences.append(
            "Your taste was understood, and yet pictures hardly changed: draw with independent starts, or raise "
            "the rank."
        )
    elif summary.win is not None:
        sentences.append(f"You would prefer {summary.win:.0%} of the new pictures.")
    if summary.prompt_kept is not None:
        sentences.append(f"Prompt kept: {summary.prompt_kept:.0%}.")
    elif summary.win is not None:
        sentences.append("Whether the prompt is kept could not be measured: this model needs a second prompt for that.")
    if summary.lora_strength < 1:
        sentences.append(f"It is used at {summary.lora_strength:.0%}: more of it would change the model too far.")
    return sentences


@dataclass(frozen=True)
class RoundRequest(ABC):
    """What a round is trained with.

    Attributes:
        settings: how. A round that was stopped takes only its settings of memory from here.
        lora: what of the network is trained, in a new round.
    """

    FIRST_WORK: ClassVar[str]
    """The kind of work that the gallery shows before the first update."""
    settings: TrainSettings | RewardSettings
    lora: LoraSettings

    def prepared(self, run: Run, model: ImageModel) -> RoundRequest:
        """Return the same, with what the model has to encode encoded; hosts then clear memory for training."""
        return self

    @abstractmethod
    def open(
        self, run: Run, model: ImageModel, attachment: str, show: Looked, processes: Processes = ALONE
    ) -> RoundTrainer:
        """Open the trainer; see `Trainer.open` and `RewardTrainer.open`."""

    def train(
        self,
        run: Run,
        model: ImageModel,
        attachment: str,
        after_update: Callable[[Report], Next],
        show: Looked = lambda done, total: None,
        processes: Processes = ALONE,
        say: Callable[[str], object] = lambda memory: None,
    ) -> SavedRound | None:
        """Open the trainer and train; see `train_round`. Unless it was paused, memory is given back.

        Args:
            run, model, attachment, after_update: as for `Trainer.open` and `train_round`.
            show: called while pictures are looked at, before the round is begun.
            say: called before the first update with what the round takes in memory, a sentence; not where that is not
                known.
            processes: which train it together.
        """
        paused = False
        try:
            trainer = self.open(run, model, attachment, show, processes)
            with trainer:  # also where somebody stops while that is said
                if memory := teaching_memory(trainer.memory()):
                    say(memory)
                saved = train_round(trainer, after_update)
            paused = saved is None
            return saved
        finally:
            if not paused:
                self.release()

    @abstractmethod
    def release(self) -> None:
        """Give back the memory of what only training needed."""


@dataclass(frozen=True)
class PicksRequest(RoundRequest):
    """A round by picks.

    Attributes:
        reward: scores all images in place of picks.
        others: features that were noted of the run's pictures (`note_features`), for the judge to see beside statistics
            and what the network sees.
    """

    FIRST_WORK = "checking"
    settings: TrainSettings
    reward: Reward | None = None
    others: Sequence[Features] = ()

    def open(
        self,
        run: Run,
        model: ImageModel,
        attachment: str,
        show: Looked = lambda done, total: None,
        processes: Processes = ALONE,
    ) -> Trainer:
        kinds = [features.name for features in self.others]
        how = (self.settings, self.lora, attachment, self.reward, kinds, show, processes)
        return Trainer.open(run, model.denoiser, *how)

    def release(self) -> None:
        """See `RoundRequest.release`; a reward that stands for picks scores once, before training."""


@dataclass(frozen=True)
class RewardRequest(RoundRequest):
    """A round by a reward.

    Attributes:
        sample: how images are drawn.
        reward: differentiable; None to make a LoRA of what a stopped round has learnt.
        prompts: ids of those to draw for; if none are named, all that somebody asked for.
    """

    FIRST_WORK = "teaching"
    settings: RewardSettings
    sample: SampleSettings
    reward: Reward | None
    prompts: Sequence[int] = ()

    def prepared(self, run: Run, model: ImageModel) -> RewardRequest:
        if self.reward is None:
            return self
        ids = add_prompts(run, model, prompts_to_draw(run), self.sample.negative)
        return dataclasses.replace(self, prompts=ids)

    def open(
        self, run: Run, model: ImageModel, attachment: str, show: Looked, processes: Processes = ALONE
    ) -> RewardTrainer:
        """See `RoundRequest.open`; no picture is looked at before."""
        if self.reward is None:
            return RewardTrainer.open_stopped(run, model, self.settings, attachment)
        how = (self.settings, self.lora, self.sample, attachment, self.prompts, processes)
        return RewardTrainer.open(run, model, self.reward, *how)

    def release(self) -> None:
        """Take the reward's network off the graphics card, by showing it an image on the processor."""
        if self.reward is not None:
            with torch.no_grad(), suppress(D3POError, RuntimeError):  # nothing is lost by that
                self.reward(torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64), [""])


OWN_PICKS = "picks"
"""Names, in a reward as it is written, the judge that is fitted to the run's own picks."""
JUDGE_NAME = "what your picks say"
"""What people read for that."""
JUDGE_FILE = "reward-from-picks.safetensors"
"""That judge in the run's folder, as it was when the round was begun: later picks do not change it in between."""


def request_next(run: Run, finish: bool) -> PicksRequest | RewardRequest:
    """Return the request for the round that was stopped, whatever it learns from; else for a new one by picks.

    Args:
        run: the run.
        finish: the stopped round is to be ended as it is. That takes no reward, whose files may be gone.

    Raises:
        D3POError: the stopped round's reward cannot be loaded any more.
    """
    stopped = run.rounds.stopped()
    if stopped is None or "reward" not in stopped.settings:
        return PicksRequest(train_settings(run), lora_settings(run))
    try:
        reward = None if finish else _load(run, _written(stopped))
    except D3POError as error:
        raise D3POError(
            f"Round {stopped.number} cannot go on. {error.what}",
            f"{error.do} Or finish it as it is, under Other ways to teach: that takes no reward.",
            "What it has learnt is saved.",
        ) from error
    return _by_reward(run, reward, from_stored(RewardSettings, stopped.settings["reward"]))


def request_reward(run: Run, written: str, settings: RewardSettings) -> RewardRequest:
    """Return the request for a new round by a reward, or for the stopped one if that learns from the same reward.

    Every new round has a seed of its own, so that it draws other images.

    Args:
        run: the run.
        written: the reward, as `get_reward` reads it; `OWN_PICKS` stands for the run's own picks.
        settings: how.

    Raises:
        D3POError: another round was stopped in the middle; or the reward is unknown, is not differentiable, or would be
            fitted to picks that are too few or contradict each other.
    """
    if not written.strip():
        raise D3POError("No reward is named.", "Choose one, or write one.")
    stopped = run.rounds.stopped()
    if stopped is None:
        return _by_reward(run, _load(run, written, fit_anew=True), dataclasses.replace(settings, seed=reward_seed(run)))
    if canonical(_written(stopped)) != canonical(written):
        raise D3POError(
            f"Round {stopped.number} of this taste was stopped while it learnt from "
            f"{stopped.settings.get('reward_name', 'picks')}.",
            "Let it go on with Teach in the gallery, or finish it as it is, first.",
            "What it has learnt is saved.",
        )
    return _by_reward(run, _load(run, written), settings)


def reward_seed(run: Run) -> int:
    """Return the seed of the next round by a reward: another for every round, and the same if it is begun again."""
    return (int(run.run_id[:8], 16) + len(run.rounds.all())) % 2**32


def _by_reward(run: Run, reward: Reward | None, settings: RewardSettings) -> RewardRequest:
    return RewardRequest(settings, lora_settings(run), sample_settings(run), reward)


def _written(stopped: Round) -> str:
    """Return the reward that a stopped round learns from; its name where only its own program can load it."""
    return str(stopped.settings.get("written") or stopped.settings.get("reward_name", ""))


def _load(run: Run, written: str, fit_anew: bool = False) -> Reward:
    """Load a reward, fitting the judge of the run's own picks if it is part of it and is to be fitted anew."""

    def own_picks() -> Reward:
        if fit_anew:
            save_judge(fit_judge(run, panel=Panel.of(run, train_settings(run))), run.folder / JUDGE_FILE)
        return dataclasses.replace(load_judge_reward(str(run.folder / JUDGE_FILE)), name=JUDGE_NAME)

    return require_differentiable(get_reward(written, {OWN_PICKS: own_picks}))
