"""One training of the loop: found in the cache by its key, or done and evaluated here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.active.initial_weights import first_weights
from cryoquery.active.iteration import EXAMPLES, MODEL, SCORES, SNAPSHOTS
from cryoquery.active.missing_labels import TrainingMasks, training_masks
from cryoquery.active.oracles import SimulatedOracle
from cryoquery.active.progress import EpochEnded, PhaseStarted
from cryoquery.active.run import Context, Run
from cryoquery.active.training_key import cache_inputs, fine_tunes, key_from
from cryoquery.data.pool import LabeledImages
from cryoquery.network import train as fitting
from cryoquery.network.checkpoint import Weights, load_weights, save_model, save_snapshots
from cryoquery.network.model import AttentionUNet
from cryoquery.network.optimize import Training, TrainingStep
from cryoquery.network.predict import Predictor
from cryoquery.picking.evaluate import evaluate, example_rows
from cryoquery.picking.threshold import picking_recipe
from cryoquery.storage.atomic import sha256, write_json


def train_and_evaluate(
    run: Run, context: Context, oracle: SimulatedOracle, history: Sequence[NDArray[np.int64]]
) -> tuple[Path, bool]:
    """The training on the last of the labeled sets in ``history``, and whether it was done here.

    ``history`` has the labeled set of each iteration.

    It is looked up by its key, and done where the cache has none. So are those that it goes on from,
    where their models were not kept.
    """
    labeled, continues = history[-1], fine_tunes(run, history, context.training.fine_tune)
    inputs = cache_inputs(context)
    key = key_from(run, inputs, history)

    def make(folder: Path) -> None:
        start = None
        if continues:
            start = load_weights(train_and_evaluate(run, context, oracle, history[:-1])[0] / MODEL)[0]
        snapshots: list[Weights] = []
        context.progress(PhaseStarted("training"))
        masks = training_masks(context, oracle, labeled)
        network = _fit(run, context, masks, history, start, context.cache.checkpoint(key), snapshots)
        if context.training.snapshots:
            save_snapshots(folder / SNAPSHOTS, snapshots)
        context.progress(PhaseStarted("evaluation"))
        predictor = Predictor(network, context.fabric, context.training.batch_size)
        made_by = {name: inputs[name] for name in ("training", "pretraining", "start_sha256")}
        made_by |= {"seed": run.seed, "training_key": key}
        recipe = picking_recipe(
            predictor, oracle.labels, labeled, context.splits, context.predicted, masks.of
        )
        save_model(folder / MODEL, network, context.model, made_by, recipe.model_dump(mode="json"))
        _evaluate(predictor, context, folder, recipe.raw_threshold)

    return context.cache.obtain(key, make, context.waiting)


def _fit(
    run: Run,
    context: Context,
    masks: TrainingMasks,
    history: Sequence[NDArray[np.int64]],
    start: Weights | None,
    checkpoint: Path,
    snapshots: list[Weights],
) -> AttentionUNet:
    """A network fitted to the last of ``history``, going on from ``start``; None: from scratch."""
    labeled = history[-1]

    def watch(step: TrainingStep) -> None:
        context.trained(step.n_images)
        if step.loss is not None:
            context.progress(EpochEnded(step.epoch + 1, step.n_epochs, step.loss))

    training = Training(
        start=first_weights(context, run.seed) if start is None else start,
        model=context.model,
        labeled=LabeledImages(context.pool, labeled, masks.read),
        config=run.training(context.training, len(history) - 1),
        from_scratch=start is None,
        seed=run.seed,
    )
    network = fitting.fit(training, context.fabric, watch, context.device, checkpoint, snapshots)
    context.predicted((1 + len(snapshots)) * context.training.n_recalibrated(len(labeled)))
    return network


def _evaluate(predictor: Predictor, context: Context, folder: Path, threshold: float) -> None:
    """Leave scores on the held-out splits, and predictions of a few images; each image passes once."""
    rows = example_rows(context.dataset, context.splits[0])
    reported, *others = (
        evaluate(
            predictor, context.dataset, split, context.predicted, tuned_threshold=threshold, examples=rows
        )
        for split in context.splits
    )
    np.savez_compressed(folder / EXAMPLES, rows=rows, probability=reported.examples)
    beside = {evaluation.scores["split"]: evaluation.scores for evaluation in others}
    write_json(folder / SCORES, reported.scores | beside | {"model_sha256": sha256(folder / MODEL)})
