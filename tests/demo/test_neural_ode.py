"""The training of a neural ODE, and its time grid."""

import math

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from gaugefix.demo import time_grid
from gaugefix.demo.ode_classifier import ODEClassifier
from gaugefix.demo.ode_forecaster import ODEForecaster
from gaugefix.demo.solver_error import flow_through, solver_error
from gaugefix.demo.spiral import SpiralData
from gaugefix.demo.time_grid import TimeGrid, fit_clock_
from gaugefix.errors import FieldError, ProjectionWarning, SettingError
from gaugefix.ode import TimeGauge, final_errors, kinetic

SMALL = {"inputs": 2, "classes": 2, "dimension": 3, "hidden": 8, "lr": 1e-2}


def trainer(*callbacks, epochs=2, **settings) -> Trainer:
    seed_everything(0, verbose=False)
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


def fit(model, *callbacks, checkpoint=None, **settings) -> Trainer:
    """Four steps an epoch."""
    run = trainer(*callbacks, **settings)
    run.fit(model, datamodule=SpiralData(batch_size=100, points=500), ckpt_path=checkpoint, weights_only=True)
    return run


def classifier(**settings) -> ODEClassifier:
    torch.manual_seed(0)
    return ODEClassifier(**{**SMALL, **settings})


def test_numbers_of_evaluations_are_logged():
    model = classifier(solver_steps=5, adjoint=True)
    metrics = fit(model, epochs=1).callback_metrics
    assert {name: float(value) for name, value in metrics.items() if "nfe" in name} == {
        "train/nfe": 20.0,
        "train/nfe_backward": 20.0,
        "val/nfe": 20.0,
    }
    error = pytest.approx(float(metrics["val/solver_error"]))
    assert model.headline == {"nfe": 20, "nfe_backward": 20, "solver_error": error}


def test_solver_error_is_that_of_held_out_rows():
    model = classifier(solver="euler", solver_steps=4)
    metrics = fit(model, epochs=1).callback_metrics
    u = SpiralData(points=500)
    u.setup()
    expected = solver_error(model.net, u.val_data.tensors[0][:64])
    assert float(metrics["val/solver_error"]) == pytest.approx(expected, rel=1e-6)
    assert expected > 1e-4


def test_kinetic_energy_is_in_the_loss_and_not_in_what_is_logged():
    plain, penalised = classifier(), classifier(kinetic=0.5)
    batch = (torch.randn(9, 2), torch.arange(9) % 2)
    for model in (plain, penalised):
        model.log = lambda *args, **kwargs: None
    difference = penalised.training_step(batch, 0) - plain.training_step(batch, 0)
    times, states = plain.net.path(batch[0])
    assert float(difference.detach()) == pytest.approx(
        0.5 * float(kinetic(plain.net.field, times, states.detach()).detach()), rel=1e-5
    )


def test_a_penalty_lowers_the_kinetic_energy():
    energies = []
    for weight in (0.0, 1.0):
        model = classifier(kinetic=weight)
        fit(model, epochs=10)
        times, states = model.net.path(torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
        energies.append(float(kinetic(model.net.field, times, states).detach()))
    assert energies[1] < 0.5 * energies[0]


def test_forecasts_of_another_shape_are_refused():
    model = ODEForecaster(past=3, horizon=2, channels=4, dimension=3, hidden=4)
    outputs = model(torch.randn(5, 12))
    assert outputs.shape == (5, 2, 4)
    with pytest.raises(FieldError, match=r"targets of shape \(5, 2, 4\) for the model, got \(5, 3, 4\)"):
        model.loss(outputs, torch.randn(5, 3, 4))


def test_hyperparameters_are_saved_with_all_settings():
    assert dict(classifier(solver_steps=3).hparams) == {**SMALL, "solver_steps": 3}


@pytest.mark.parametrize("slice", ["equidistribution", "proper_time"])
def test_clock_is_on_its_slice(slice):
    net = classifier(solver_steps=6).net.double()
    with torch.no_grad():
        net.field.inner.weight[:, -1] *= 8  # a field that changes with time
    u = torch.randn(16, 2, dtype=torch.float64)
    fit_clock_(net, TimeGauge(slice, "rk4", steps=6), u)
    with torch.no_grad():
        x = net.encoder(u)
        states = flow_through(net, x, net.grid)
    assert (net.grid.diff() * 6 - 1).abs().max() > 0.05
    if slice == "proper_time":
        parts = (states[1:] - states[:-1]).square().mean((1, 2)).sqrt()
    else:
        parts = final_errors(net.field, x, net.grid, "rk4")
    assert float(parts.max() / parts.min()) == pytest.approx(1, abs=0.01)


def test_grid_is_fitted_at_the_start_and_every_n_steps():
    grid = TimeGrid("proper_time", every_n_steps=5)
    fit(classifier(), grid, epochs=3)
    assert grid.fits == 3
    assert grid.seconds > 0


def test_grid_is_fitted_on_the_inputs_of_the_last_batches(monkeypatch):
    seen, given = [], []
    grid = TimeGrid("proper_time", every_n_steps=3, points=250)
    model = classifier()
    monkeypatch.setattr(time_grid, "fit_clock_", lambda net, gauge, u: given.append(u))
    model.on_train_batch_start = lambda batch, batch_idx: seen.append(batch[0])
    fit(model, grid)
    assert [len(u) for u in given] == [100, 250, 250]
    assert torch.equal(given[1], torch.cat(seen[:4])[-250:])
    assert torch.equal(given[2], torch.cat(seen[:7])[-250:])


def test_accumulated_batches_are_no_steps():
    grid = TimeGrid("proper_time", every_n_steps=1)
    fit(classifier(), grid, accumulate_grad_batches=2)
    assert grid.fits == 4


def test_grid_and_counts_survive_a_checkpoint(tmp_path):
    half, grid = classifier(), TimeGrid(every_n_steps=3)
    fit(half, grid).save_checkpoint(tmp_path / "half.ckpt")
    resumed, again = classifier(), TimeGrid(every_n_steps=3)
    fit(resumed, again, checkpoint=tmp_path / "half.ckpt")  # nothing is left to do
    assert (again.fits, grid.fits) == (3, 3)
    assert torch.equal(resumed.net.grid, half.net.grid)
    assert not torch.allclose(half.net.grid, classifier().net.grid, atol=1e-4)
    u = torch.randn(4, 2)
    assert torch.equal(resumed(u), half(u))
    fit(resumed, again, checkpoint=tmp_path / "half.ckpt", epochs=3)
    assert again.fits == 4  # at step 9
    assert not torch.equal(resumed.net.grid, half.net.grid)


def test_a_field_that_is_not_finite_keeps_its_grid():
    model, grid = classifier(), TimeGrid()
    before = model.net.grid.clone()
    with torch.no_grad():
        model.net.field.outer.bias.fill_(math.inf)
    run = trainer()
    grid.setup(run, model, "fit")
    with pytest.warns(ProjectionWarning, match="No new time grid at step 0: Expected finite errors for field"):
        grid.on_train_batch_start(run, model, (torch.randn(5, 2), torch.zeros(5)), 0)
    assert grid.fits == 0
    assert torch.equal(model.net.grid, before)


def test_what_a_grid_cannot_do_is_refused():
    with pytest.raises(SettingError, match=r"for slice, got 'propertime'\. Did you mean 'proper_time'\?"):
        TimeGrid("propertime")
    with pytest.raises(SettingError, match="positive integers for every_n_steps and points, got 0 and 256"):
        TimeGrid(every_n_steps=0)
    with pytest.raises(SettingError, match="fixed steps for TimeGrid, got 'dopri5'"):
        fit(classifier(solver="dopri5"), TimeGrid())
