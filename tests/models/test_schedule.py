"""Noise levels and timesteps against diffusers' own schedulers and pipelines, and against known numbers."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
)

from benchmarks import scheduler_levels
from d3po_core.diffusion.noise_schedule import NoiseSchedule, karras
from d3po_core.errors import D3POError
from d3po_core.models import DiffusersModel
from d3po_core.models.schedules import DiffusionSchedule, FlowSchedule
from tests.tiny_pipelines import sd_scheduler, tiny_flux, tiny_sd, tiny_sd3


def visited_by_pipeline(pipe, steps: int) -> list[float]:
    """The timesteps that a pipeline really gives to its network."""
    seen: list[float] = []
    module = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    hook = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(float((args[1] if len(args) > 1 else kwargs["timestep"]).flatten()[0])),
        with_kwargs=True,
    )
    size = {"height": 16, "width": 16}
    pipe("a flower", num_inference_steps=steps, guidance_scale=1.0, output_type="latent", **size)
    hook.remove()
    return seen


def test_known_noise_levels_of_stable_diffusion():
    schedule = DiffusionSchedule(sd_scheduler(timestep_spacing="trailing"))
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    table = np.sqrt(1 / np.cumprod(1 - betas) - 1)
    levels = schedule.sigmas(1000)
    assert levels.dtype == torch.float64
    np.testing.assert_allclose(levels[:-1].flip(0), table, rtol=2e-5)  # diffusers makes its table in float32
    assert abs(float(levels[0]) - 14.6146) < 1e-3  # k-diffusion's sigma_max of SD 1.x


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [4, 7, 20])
def test_timesteps_are_those_the_pipeline_visits(spacing: str, steps: int):
    pipe = tiny_sd(timestep_spacing=spacing)
    schedule = DiffusionSchedule(pipe.scheduler)
    levels = schedule.sigmas(steps)
    assert len(levels) == steps + 1 and bool((levels[1:] < levels[:-1]).all())
    assert schedule.timestep(levels[:-1]).tolist() == visited_by_pipeline(pipe, steps)


def test_the_last_level_follows_the_configuration():
    first = float(sd_scheduler().alphas_cumprod[0])
    end = ((1 - first) / first) ** 0.5
    assert float(DiffusionSchedule(sd_scheduler()).sigmas(20)[-1]) == pytest.approx(end, rel=1e-6)
    assert float(DiffusionSchedule(sd_scheduler(set_alpha_to_one=True)).sigmas(20)[-1]) == 0
    assert float(DiffusionSchedule(sd_scheduler(steps_offset=0)).sigmas(20)[-1]) == 0  # t = 0 was visited already


@pytest.mark.parametrize("other", [PNDMScheduler, EulerDiscreteScheduler])
def test_other_schedulers_of_the_same_configuration_give_the_same_levels(other):
    got = DiffusionSchedule(other.from_config(sd_scheduler().config, timestep_spacing="leading")).sigmas(20)
    torch.testing.assert_close(got[:-1], DiffusionSchedule(sd_scheduler()).sigmas(20)[:-1], rtol=1e-6, atol=0)


def test_levels_equal_eulers():
    euler = EulerDiscreteScheduler.from_config(sd_scheduler().config, timestep_spacing="leading")
    euler.set_timesteps(20)
    got = DiffusionSchedule(sd_scheduler()).sigmas(20)
    torch.testing.assert_close(got[:-1], euler.sigmas[:-1].double(), rtol=1e-6, atol=0)


def test_karras_equals_diffusers():
    euler = EulerDiscreteScheduler.from_config(
        sd_scheduler().config, timestep_spacing="leading", use_karras_sigmas=True
    )
    euler.set_timesteps(12)
    got = DiffusersModel(tiny_sd()).denoiser.sigmas(12, "karras")
    torch.testing.assert_close(got, euler.sigmas.double(), rtol=1e-5, atol=0)


def test_karras_of_one_step_keeps_the_level():
    assert karras(torch.tensor([3.0], dtype=torch.float64)).tolist() == [pytest.approx(3), 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_timestep_is_the_integer_at_every_table_level(dtype: torch.dtype):
    schedule = DiffusionSchedule(sd_scheduler(timestep_spacing="trailing"))
    levels = schedule.sigmas(1000)[:-1].to(dtype).double()
    assert torch.equal(schedule.timestep(levels), torch.arange(999, -1, -1).double())


def test_timestep_between_levels_is_interpolated_in_log_sigma():
    schedule = DiffusionSchedule(sd_scheduler(timestep_spacing="trailing"))
    table = schedule.sigmas(1000)[:-1].flip(0)
    between = table[400] ** 0.7 * table[401] ** 0.3
    outside = torch.stack([between, table[0] / 2, table[-1] * 2, torch.zeros(()).double()])
    torch.testing.assert_close(schedule.timestep(outside), torch.tensor([400.3, 0, 999, 0]).double())


def test_zero_terminal_snr_is_capped():
    scheduler = sd_scheduler("v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    assert float(scheduler.alphas_cumprod[-1]) == 0
    schedule = DiffusionSchedule(scheduler)
    euler = EulerDiscreteScheduler.from_config(scheduler.config)
    euler.set_timesteps(10)
    levels = schedule.sigmas(10)
    assert bool(levels.isfinite().all()) and float(schedule.timestep(levels[:1])) == 999
    torch.testing.assert_close(levels[:-1], euler.sigmas[:-1].double(), rtol=1e-5, atol=0)


def test_consistency_models_take_their_own_timesteps():
    scheduler = LCMScheduler.from_config(sd_scheduler().config)
    scheduler.set_timesteps(4)
    schedule = DiffusionSchedule(scheduler)
    assert schedule.timestep(schedule.sigmas(4)[:-1]).tolist() == scheduler.timesteps.tolist() == [999, 759, 499, 259]


def test_flow_levels_are_those_the_pipeline_visits():
    pipe = tiny_sd3()
    denoiser = DiffusersModel(pipe).denoiser
    levels = denoiser.sigmas(6, "model")
    assert float(levels[0]) == 1 and float(levels[-1]) == 0
    assert (levels[:-1] * 1000).float().tolist() == visited_by_pipeline(pipe, 6)


@pytest.mark.parametrize("dev", [False, True])
def test_flux_levels_are_those_the_pipeline_visits(dev: bool):
    pipe = tiny_flux(guidance_embeds=dev)
    pipe.default_sample_size = 8  # the size that the pipeline is run at, for the shift
    levels = DiffusersModel(pipe).denoiser.sigmas(6, "model")
    torch.testing.assert_close(levels[:-1].float(), torch.tensor(visited_by_pipeline(pipe, 6)))


def test_dynamic_shift_of_sd3_follows_the_native_size():
    pipe = tiny_sd3(use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=64)
    denoiser = DiffusersModel(pipe).denoiser
    assert (denoiser.sigmas(5, "model")[:-1] * 1000).float().tolist() == visited_by_pipeline(pipe, 5)


def test_flow_karras_equals_diffusers():
    denoiser = DiffusersModel(tiny_sd3()).denoiser
    other = FlowMatchEulerDiscreteScheduler(shift=3.0, use_karras_sigmas=True)
    other.set_timesteps(8)
    torch.testing.assert_close(denoiser.sigmas(8, "karras"), other.sigmas.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("steps", [1000, 1001])
def test_too_many_steps(steps: int):
    with pytest.raises(D3POError, match=f"no schedule of {steps} steps"):
        DiffusionSchedule(sd_scheduler()).sigmas(steps)


def test_every_number_of_steps_gives_falling_levels():
    for spacing in ("leading", "trailing", "linspace"):
        schedule = DiffusionSchedule(sd_scheduler(timestep_spacing=spacing))
        for steps in range(1, 999):
            levels = schedule.sigmas(steps)
            assert len(levels) == steps + 1 and bool((levels[1:] < levels[:-1]).all()), (spacing, steps)


def test_unknown_prediction_type():
    scheduler = sd_scheduler()
    scheduler.register_to_config(prediction_type="flow_prediction")
    with pytest.raises(D3POError, match="flow_prediction"):
        DiffusionSchedule(scheduler)


def test_levels_are_evenly_spaced_in_time_as_k_diffusions():
    table = NoiseSchedule(sd_scheduler().alphas_cumprod, "epsilon")
    log = table.table.log().numpy()
    theirs = np.exp(np.interp(np.linspace(999, 0, 7), np.arange(1000), log))
    assert np.allclose(table.levels(7)[:-1].numpy(), theirs, rtol=1e-12) and float(table.levels(7)[-1]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_scheduler_of_diffusers_is_obeyed_or_refused():
    """With every setting that changes a level, beside its own levels."""
    found = list(scheduler_levels.rows())
    assert [(row.scheduler, row.setting, row.ours, row.own) for row in found if not row.equal] == []
    taken = {row.scheduler for row in found if not row.refused}
    assert {
        "DDIMScheduler",
        "EulerDiscreteScheduler",
        "LCMScheduler",
        "TCDScheduler",
        "UniPCMultistepScheduler",
    } <= taken
    assert {"karras" in row.setting for row in found if row.scheduler == "DPMSolverMultistepScheduler"} == {True, False}
    assert all("supported" in row.refused for row in found if row.refused)


def test_a_pipelines_karras_levels_are_its_models():
    """DPM++ with Karras' levels, as many folders have it."""
    pipe = tiny_sd()
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
    pipe.scheduler.set_timesteps(5)
    torch.testing.assert_close(DiffusersModel(pipe).denoiser.sigmas(5, "model"), pipe.scheduler.sigmas.double())


@pytest.mark.parametrize("setting", ["invert_sigmas", "stochastic_sampling"])
def test_settings_of_flows_that_are_no_levels_are_refused(setting: str):
    if setting not in inspect.signature(FlowMatchEulerDiscreteScheduler).parameters:
        pytest.skip("this diffusers does not have it: since 0.35")
    with pytest.raises(D3POError, match=f"has {setting}, which is not supported"):
        FlowSchedule(FlowMatchEulerDiscreteScheduler(**{setting: True}), 256, even=False)
