"""Which learning rate counts, and how far it goes up."""

import pytest

from gaugefix.compare.selection import best_lr, judged, largest_stable_lr
from tests.compare.made import made, results, write_run


def acc(method, lr, *values, **more):
    return [
        made(method, lr, seed, val_acc_best=value, val_loss_final=1 - value, **more)
        for seed, value in enumerate(values)
    ]


def test_the_best_mean_over_seeds_counts_and_not_the_best_seed():
    found = results(*acc("m", 0.1, 0.99, 0.5), *acc("m", 0.2, 0.8, 0.8))
    assert best_lr(found, "m", "balanced") == 0.2
    assert [run.seed for run in judged(found, "m", "balanced")] == [0, 1]


def test_less_is_better_where_the_grid_says_so():
    runs = [made("m", lr, val_loss_best=loss) for lr, loss in ((0.1, 3.0), (0.2, 2.0))]
    assert best_lr(results(*runs, monitor="val/loss", monitor_mode="min"), "m", "balanced") == 0.2


def test_between_equals_the_lower_loss_decides_then_the_smaller_rate():
    runs = [made("m", lr, val_acc_best=1.0, val_loss_final=loss) for lr, loss in ((0.1, 0.2), (0.2, 0.1), (0.3, 0.1))]
    assert best_lr(results(*runs), "m", "balanced") == 0.2


def test_a_rate_at_which_a_seed_diverged_is_taken_only_if_there_is_no_other():
    lost = made("m", 0.2, 1, val_acc_best=0.9, diverged=True)
    found = results(*acc("m", 0.1, 0.7, 0.7), *acc("m", 0.2, 0.9), lost)
    assert best_lr(found, "m", "balanced") == 0.1
    assert best_lr(results(*acc("m", 0.2, 0.9), lost), "m", "balanced") == 0.2


def test_starts_and_methods_are_apart():
    found = results(*acc("m", 0.1, 0.5), *acc("m", 0.2, 0.6), *acc("m", 0.1, 0.9, start="unbalanced"))
    assert (best_lr(found, "m", "balanced"), best_lr(found, "m", "unbalanced")) == (0.2, 0.1)
    assert best_lr(found, "other", "balanced") is None


def test_nothing_that_finished_is_no_rate():
    assert best_lr(results(made("m", 0.1, diverged=True)), "m", "balanced") is None
    assert judged(results(made("m", 0.1, diverged=True)), "m", "balanced") == ()


FIRST = {"train_loss_first": 2.3}


@pytest.mark.parametrize(
    ("losses", "stable"),
    [
        ({0.1: 0.5, 1.0: 0.5}, 1.0),
        ({0.1: 0.5, 1.0: None}, 0.1),
        ({0.1: 0.5, 1.0: None, 2.0: 0.5}, 0.1),  # stable again above a divergence does not count
        ({0.1: 0.5, 1.0: 2.3026}, 0.1),  # finite, and the output of a dead network
        ({0.1: 2.29, 1.0: 0.5, 2.0: None}, 1.0),  # too small to learn anything in the time
        ({0.1: 2.29, 1.0: 2.29}, None),
        ({0.1: None, 1.0: 0.5}, None),
    ],
)
def test_the_largest_stable_rate(losses, stable):
    runs = [
        made("m", lr, **FIRST, val_acc_best=0.5, val_loss_final=loss, diverged=loss is None)
        for lr, loss in losses.items()
    ]
    assert largest_stable_lr(results(*runs), "m", "balanced") == stable


def test_one_lost_seed_is_enough():
    runs = [*acc("m", 0.1, 0.9, 0.9), *acc("m", 1.0, 0.9), made("m", 1.0, 1, diverged=True)]
    assert largest_stable_lr(results(*runs), "m", "balanced") == 0.1


def test_without_the_first_loss_that_of_the_smallest_rate_is_taken(tmp_path):
    """Here 2.0 at step 9 of the run at 0.01: 1.95 is no better, 1.8 is. A run that diverged says nothing about it."""
    small = write_run(tmp_path / "small", [{"step": 9, "train/loss": 2.0}, {"step": 19, "train/loss": 1.0}])
    wild = write_run(tmp_path / "wild", [{"step": 9, "train/loss": 1e6}])
    runs = [
        made("m", 0.01, directory=small, val_loss_final=1.0),
        made("wild", 0.01, directory=wild, diverged=True),
        made("m", 0.1, val_loss_final=1.95),
        made("m", 0.2, val_loss_final=1.8),
    ]
    found = results(*runs)
    assert [found.learned(run) for run in runs] == [True, False, False, True]
