"""Are the noise levels of a model those of its own scheduler? Every scheduler class of the installed diffusers.

    python -m benchmarks.scheduler_levels

Each class is made with its defaults and with every setting that changes a level, one at a time, and asked for seven
steps. A row says that our levels equal its own, or the sentence by which such a model is refused. PNDM's first steps go
to and fro between two levels; what is compared is those it stops at. An infinite level (zero terminal SNR) is 4096
here, as in diffusers' EulerDiscreteScheduler.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d3po_core.errors import D3POError
from d3po_core.models.schedules import CONTINUOUS, FLOWS, DiffusionSchedule, FlowSchedule

STEPS = 7
TOKENS = 256
BASE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
SETTINGS: dict[str, tuple[object, ...]] = {
    "beta_schedule": ("linear", "squaredcos_cap_v2"),
    "euler_at_final": (True,),
    "final_sigmas_type": ("sigma_min", "zero"),
    "interpolation_type": ("log_linear",),
    "invert_sigmas": (True,),
    "lower_order_final": (False,),
    "rescale_betas_zero_snr": (True,),
    "set_alpha_to_one": (False,),
    "shift": (3.0,),
    "shift_terminal": (0.1,),
    "skip_prk_steps": (True,),
    "steps_offset": (1,),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "use_beta_sigmas": (True,),
    "use_exponential_sigmas": (True,),
    "use_flow_sigmas": (True,),
    "use_karras_sigmas": (True,),
    "use_lu_lambdas": (True,),
}
INFINITE = 4096.0


@dataclass(frozen=True)
class Row:
    """One class with one setting; `refused` is a sentence, `own` and `ours` are levels (descending)."""

    scheduler: str
    setting: str
    refused: str = ""
    own: Tensor | None = None
    ours: Tensor | None = None

    @property
    def equal(self) -> bool:
        """Return whether the levels are equal, or the model is refused."""
        if self.refused:
            return True
        assert self.own is not None and self.ours is not None
        return len(self.own) >= STEPS and torch.allclose(self.ours[:STEPS], self.own[:STEPS], rtol=1e-4, atol=1e-6)


def own_levels(scheduler: Any) -> Tensor:
    """Return the levels that a scheduler visits, by its own attributes."""
    scheduler.set_timesteps(STEPS)
    name = type(scheduler).__name__
    if name in CONTINUOUS or name in FLOWS:
        return torch.unique_consecutive(torch.as_tensor(scheduler.sigmas, dtype=torch.float64))
    alphas = scheduler.alphas_cumprod[torch.as_tensor(scheduler.timesteps).long()].double()
    return ((1 - alphas) / alphas).sqrt().unique().flip(0).nan_to_num(posinf=INFINITE)


def measured(kind: Any, options: dict[str, object]) -> Row | None:
    """Return the row of a class with these options; None if it cannot be made with them."""
    known = inspect.signature(kind.__init__).parameters
    base = {name: value for name, value in BASE.items() if name in known}
    setting = ", ".join(f"{name}={value}" for name, value in options.items())
    if kind.__name__ == "PNDMScheduler":
        base |= {"skip_prk_steps": True}
    try:
        scheduler = kind(**{**base, **options})
    except (TypeError, ValueError, ImportError, NotImplementedError, AttributeError):
        return None  # needs arguments, or a package that is not installed: no pipeline can be loaded with it
    try:
        flow = kind.__name__ in FLOWS
        ours = FlowSchedule(scheduler, TOKENS, even=False) if flow else DiffusionSchedule(scheduler)
        levels = ours.sigmas(STEPS)
    except D3POError as error:
        return Row(kind.__name__, setting, refused=str(error))
    return Row(kind.__name__, setting, own=own_levels(scheduler), ours=levels)


def rows() -> Iterator[Row]:
    """Yield the rows of all classes; of those that are refused as they are, only that one."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    names = [name for name in dir(diffusers) if name.endswith("Scheduler")]
    for kind in (getattr(diffusers, name) for name in names):
        parameters = inspect.signature(kind.__init__).parameters
        each = [{name: value} for name, values in SETTINGS.items() if name in parameters for value in values]
        for options in [{}, *each]:
            row = measured(kind, options)
            if row is not None:
                yield row
                if row.refused and not options:
                    break


def main() -> None:
    warnings.filterwarnings("ignore")
    print("| scheduler | setting | levels |\n|---|---|---|")
    differing = 0
    for row in rows():
        differing += not row.equal
        what = row.refused or ("equal" if row.equal else f"DIFFER: {row.ours} {row.own}")
        print(f"| {row.scheduler} | {row.setting or 'defaults'} | {what} |")
    print(f"\n{differing} rows differ.")


if __name__ == "__main__":
    main()
