"""Checks an installed LightGBM's CUDA learner on a GPU against trees that are grown here.

Run it with the Python that the wheel is installed in. Trees of a few leaves are grown leaf by leaf
in float64, by trying out every threshold of every feature; LightGBM must find the same ones, since
features have fewer values than it has bins, and targets are so random that no two splits are alike.
Rows are no multiple of a block, and some features have two values, or one.

Other objectives, categories and bagging have no such reference. There the loss in training must be
what the learner for CPUs reaches with the same settings, which shares the objectives' formulas but
none of the CUDA code. Quantized training is not checked, because upstream's learner for CUDA
computes it wrongly in this version (its pull requests 7254, 7374 and 7401).

Tolerances: gradients are float32, and so are leaves' values in part: each round may be off by some
roundings of the largest value. Losses may differ by 2 %: one split of two that are nearly as good
leads to other trees.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch  # before lightgbm: it brings NCCL's library

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightgbm
import numpy
from cases import ROUNDING, Case, run

DEVICE = "cuda"
ROWS, LEAVES, ROUNDS, RATE, LEAST = 3001, 6, 5, 0.25, 7
VALUES = (40, 2, 200, 1, 17, 3)  # how many each feature has
ROUNDINGS = 64

Floats = numpy.ndarray
# Gradient and hessian by predictions and targets, as LightGBM defines its objectives.
Derivatives = Callable[[Floats, Floats], "tuple[Floats, Floats]"]


def of_regression(predicted: Floats, target: Floats) -> tuple[Floats, Floats]:
    return predicted - target, numpy.ones_like(predicted)


def of_binary(predicted: Floats, target: Floats) -> tuple[Floats, Floats]:
    likely = 1 / (1 + numpy.exp(-predicted))
    return likely - target, likely * (1 - likely)


def of_poisson(predicted: Floats, target: Floats) -> tuple[Floats, Floats]:
    """With poisson_max_delta_step = 0.7, as it is unless one says otherwise."""
    return numpy.exp(predicted) - target, numpy.exp(predicted + 0.7)


EXACT: Mapping[str, Derivatives] = {
    "regression": of_regression, "binary": of_binary, "poisson": of_poisson,
}  # fmt: skip


def drawn() -> tuple[Floats, numpy.random.Generator]:
    chance = numpy.random.default_rng(7)
    return numpy.stack([chance.integers(0, n, ROWS) for n in VALUES], 1).astype(float), chance


def targets(objective: str, features: Floats, chance: numpy.random.Generator) -> Floats:
    signal = numpy.sin(features[:, 0] / 5) + features[:, 1] * (features[:, 2] > 90) / 2
    noisy = signal + chance.normal(size=ROWS)
    if objective == "binary":
        return (noisy > 0.5).astype(float)
    if objective == "poisson":
        return chance.poisson(numpy.exp(noisy / 2)).astype(float)
    return noisy


# -- trees that are grown here ---------------------------------------------------------------------


def best_split(features: Floats, gradient: Floats, hessian: Floats) -> tuple[float, Floats | None]:
    """What the best split of some rows gains, and which of them go left."""
    best, left = 0.0, None
    whole = gradient.sum() ** 2 / hessian.sum()
    for feature in features.T:
        for threshold in numpy.unique(feature)[:-1]:
            goes = feature <= threshold
            if min(goes.sum(), (~goes).sum()) < LEAST:
                continue
            halves = [(gradient[one].sum(), hessian[one].sum()) for one in (goes, ~goes)]
            gain = sum(g**2 / h for g, h in halves) - whole
            if gain > best:
                best, left = gain, goes
    return best, left


def tree(features: Floats, gradient: Floats, hessian: Floats) -> Floats:
    """What a tree adds to each row, before the learning rate."""
    rows = [numpy.arange(len(features))]
    splits = [best_split(features, gradient, hessian)]
    while len(rows) < LEAVES:
        place = max(range(len(rows)), key=lambda one: splits[one][0])
        left = splits[place][1]
        if left is None:
            break
        for part in (rows[place][left], rows[place][~left]):
            rows.append(part)
            splits.append(best_split(features[part], gradient[part], hessian[part]))
        del rows[place], splits[place]
    added = numpy.zeros(len(features))
    for one in rows:
        added[one] = -gradient[one].sum() / hessian[one].sum()
    return added


def expect_same_trees(objective: str) -> None:
    features, chance = drawn()
    target = targets(objective, features, chance)
    expected = numpy.zeros(ROWS)
    for _ in range(ROUNDS):
        expected += RATE * tree(features, *EXACT[objective](expected, target))
    booster = trained(objective, DEVICE, features, target)
    found = booster.predict(features, raw_score=True)
    error = abs(found - expected).max()
    allowed = ROUNDINGS * ROUNDS * ROUNDING[torch.float32] * abs(expected).max()
    if not error <= allowed:
        raise AssertionError(f"the error is {error:.3g}, and {allowed:.3g} is allowed")


# -- the learner for CPUs --------------------------------------------------------------------------

OF_DATA = ("categorical_feature", "group")
METRICS = {
    "regression": "l2", "regression_l1": "l1", "huber": "huber", "quantile": "quantile",
    "binary": "binary_logloss", "poisson": "poisson", "multiclass": "multi_logloss",
    "lambdarank": "ndcg",
}  # fmt: skip


def trained(
    objective: str, device: str, features: Floats, target: Floats, **more: object
) -> lightgbm.Booster:
    settings = {
        "objective": objective, "device_type": device, "num_leaves": LEAVES, "verbose": -1,
        "learning_rate": RATE, "min_data_in_leaf": LEAST, "min_sum_hessian_in_leaf": 0,
        "min_data_in_bin": 1, "max_bin": 255, "boost_from_average": False, "seed": 3,
        "feature_pre_filter": False, "metric": METRICS[objective], "num_threads": 4,
    }  # fmt: skip
    settings |= {name: value for name, value in more.items() if name not in OF_DATA}
    of_data = {name: value for name, value in more.items() if name in OF_DATA}
    data = lightgbm.Dataset(features, target, params=settings, free_raw_data=False, **of_data)
    return lightgbm.train(settings, data, ROUNDS, keep_training_booster=True)


def expect_as_good(objective: str, **more: object) -> None:
    features, chance = drawn()
    target = targets(objective, features, chance)
    if objective == "multiclass":
        target = numpy.clip(numpy.round(target) + 1, 0, 2)
        more["num_class"] = 3
    if objective == "lambdarank":
        target = numpy.clip(numpy.round(target) + 1, 0, 3)
        more["group"] = [30] * (ROWS // 30) + [ROWS % 30]
    ours, plain = (loss(objective, one, features, target, more) for one in (DEVICE, "cpu"))
    if not abs(ours - plain) <= 0.02 * abs(plain):
        raise AssertionError(f"the loss is {ours:.6g}, and {plain:.6g} with the CPU's learner")


def loss(
    objective: str, device: str, features: Floats, target: Floats, more: Mapping[str, object]
) -> float:
    booster = trained(objective, device, features, target, **more)
    return float(booster.eval_train()[0][2])


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {
        f"trees {name}": functools.partial(expect_same_trees, name) for name in EXACT
    }
    found |= {f"loss {name}": functools.partial(expect_as_good, name) for name in METRICS}
    categories = functools.partial(expect_as_good, "regression", categorical_feature=[0, 4])
    bagging = functools.partial(expect_as_good, "binary", bagging_fraction=0.7, bagging_freq=1)
    return {**found, "categories": categories, "bagging": bagging}


if __name__ == "__main__":
    sys.exit(run(cases))
