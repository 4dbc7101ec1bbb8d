"""Training a DualEncoder on Hugging Face's Trainer: precision, checkpoints, resume, early stopping, torchrun."""

from __future__ import annotations

import logging
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from sigmax.data.batches import Batches
from sigmax.data.check import DataFacts
from sigmax.data.dataset import MatchDataset
from sigmax.encoders.bm25 import fit_lexical, nearest_wrong
from sigmax.encoders.build import ENCODERS, build_towers
from sigmax.encoders.joined import Joined
from sigmax.encoders.plan import Plan
from sigmax.errors import DataError
from sigmax.evaluation import calibrate
from sigmax.families import OBJECTIVES
from sigmax.losses import make_loss
from sigmax.metrics.abstention import NONE
from sigmax.metrics.registry import watched
from sigmax.model.card import public_name
from sigmax.model.dual_encoder import DualEncoder
from sigmax.model.remembered import remember
from sigmax.processes import launched
from sigmax.training.beside import solve_beside
from sigmax.training.checkpoints import prepare
from sigmax.training.names import solve_with_names
from sigmax.training.priors import start_priors
from sigmax.training.settings import Filled, Settings
from sigmax.training.telling import tell_data, tell_memory, tell_stopped
from sigmax.training.views import start_lexical, weigh_views

if TYPE_CHECKING:  # Trainer takes seconds to import, which what is solved has no use for
    from sigmax.training.trainer import Logged, Progress, _Report

__all__ = ["build_model", "loss_floor", "train"]


log = logging.getLogger(__name__)


def build_model(data: MatchDataset, settings: Settings, batches: Batches) -> DualEncoder:
    """Build an untrained model: scale as set, biases at the log odds of a right pair in a batch, and of each label."""
    settings = settings.filled(data)
    plan = Plan(settings.seed, settings.two_towers, settings.head, settings.frozen, settings.augment)
    towers = build_towers(settings.encoder, data, plan)
    rate = min(max(batches.positive_rate(), 1e-6), 1 - 1e-6)
    loss = make_loss(
        settings.loss,
        logit_scale=settings.logit_scale,
        logit_bias=math.log(rate / (1 - rate)),
        similarity=towers.similarity,
        gather_across_devices=batches.processes > 1,
    )
    model = DualEncoder(
        towers.query,
        towers.candidate,
        loss,
        lexical=fit_lexical(data) if settings.lexical else None,
        candidates=data.candidates,
        candidate_ids=data.candidate_ids,
        pictures=data.pictures,
    )
    if settings.none_candidate:
        typical = model.encode(data.candidates[:1], "candidate")[0]
        drawn = torch.randn(len(typical), generator=torch.Generator().manual_seed(settings.seed))
        model.none_vector = nn.Parameter(drawn * typical.norm() / drawn.norm())
    if towers.similarity == "dot" and settings.epochs:  # as it is, an encoder knows nothing of the labels
        start_priors(model, batches)
    start_lexical(model, batches)
    return model


def train(
    data: MatchDataset,
    settings: Settings | None = None,
    *,
    checkpoints: str | Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    stop_early: bool = True,
    progress: Progress | None = None,
    logged: Logged | None = None,
    tell: bool = True,
    report_to: str = "none",
    calibrated: bool = True,
) -> DualEncoder:
    """Train a model, keep its best epoch, calibrate it on dev.

    What follows a frozen encoder with a linear head is solved instead, see `sigmax.training.linear`.

    Args:
        data: what to train on.
        settings: how; the defaults if None.
        checkpoints: a folder for a checkpoint per epoch, from which an interrupted run can resume; None for none.
        resume: resume from the last whole checkpoint. The result is the same as that of an uninterrupted run.
        fresh: discard the checkpoints of an interrupted run and start from the beginning.
        stop_early: watch `settings.metric` on dev each epoch, stop when it stays behind, return the best epoch.
            Without it the last epoch is returned.
        progress: called during training.
        logged: called when metrics are logged.
        tell: log sizes, and how many queries the loss leaves out.
        report_to: Trainer's loggers, such as "tensorboard" or "wandb".
        calibrated: fit presence, P(any) and rules on dev in the end.

    Returns:
        The trained model.

    Raises:
        DataError: data without anything to learn from; checkpoints of other settings, or of a run that did not finish
            where neither `resume` nor `fresh` is asked for; a folder of something else.
        ValueError: settings out of range, or a loss that is not finite.
    """
    settings = (settings or Settings()).filled(data)
    batches = _batches(data, settings)
    data.check_answers(("train", "dev"))
    _check_metric(data, settings.metric)
    if tell:
        tell_data(data, settings, len(batches))
    if settings.epochs == 0 and data.labels and settings.encoder in ENCODERS:
        raise DataError(
            f"The encoder {settings.encoder} has no vectors of labels before it is trained: `epochs` of 0 needs a "
            "sentence-transformers model, or candidates that are texts."
        )
    reranker = None
    if settings.rerank is not None:
        from sigmax.model.reranker import Reranker
        from sigmax.training.rerank import check_rerank, train_reranker

        check_rerank(data, settings)
        reranker = Reranker.load(settings.rerank, depth=settings.rerank_depth)
    model = build_model(data, settings, batches)
    if tell and settings.epochs != 0:
        tell_memory(model, batches, settings)
    start = None if model.lexical is None else model.lexical.log_weights.detach().clone()
    if settings.epochs == 0:
        steps = 0
    elif settings.defaults.solved:
        solved = solve_beside if isinstance(model.query_encoder, Joined) else solve_with_names
        steps = solved(model, data, settings, logged=logged, tell=tell)
        if progress is not None:
            progress(steps, steps, {})
    else:
        folder = None if checkpoints is None else Path(checkpoints)
        steps = _run_trainer(
            model,
            batches,
            settings,
            folder,
            resume=resume,
            fresh=fresh,
            stop_early=stop_early,
            report_to=report_to,
            callback=_reporting(progress, logged),
        )
    model.eval()
    if start is not None:
        weigh_views(model, data, start, settings.metric)
    if reranker is not None:
        told = _reporting(progress, logged)
        train_reranker(model, data, reranker, settings, report_to=report_to, callback=told)
    if calibrated:
        remember(model, data, seed=settings.seed)
        calibrate(model, data)
    model.facts = {
        "data": DataFacts.of(data).as_dict(),
        "settings": settings.as_dict()
        | {"encoder": public_name(settings.encoder), "rerank": settings.rerank and public_name(settings.rerank)},
        "steps": steps,
    }
    return model


def _reporting(progress: Progress | None, logged: Logged | None) -> _Report | None:
    """What tells of a training while it goes on; None where nobody listens."""
    if progress is None and logged is None:
        return None
    from sigmax.training.trainer import _Report

    return _Report(progress, logged)


def _run_trainer(
    model: DualEncoder,
    batches: Batches,
    settings: Filled,
    folder: Path | None,
    *,
    resume: bool,
    fresh: bool,
    stop_early: bool,
    report_to: str,
    callback: _Report | None,
) -> int:
    """Train step by step, keep the best epoch, and return the number of steps."""
    from transformers import EarlyStoppingCallback
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from sigmax.training.trainer import _arguments, _KeepBest, _only, _Steps, _threads, _Trainer, tables_of

    data = batches.data
    about = settings.as_dict() | {"data": data.name, "content": data.fingerprint}
    last = None if folder is None else prepare(folder, about, resume=resume, fresh=fresh)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _Trainer(
            model=model,
            args=_arguments(folder or Path(scratch), settings, batches, stop_early, folder is not None, report_to),
            train_dataset=_Steps(model, batches, settings.mini_batch_size),
            eval_dataset=[{}],
            data_collator=_only,
            callbacks=[EarlyStoppingCallback(settings.patience)] if stop_early and folder else [],
        )
        trainer.data, trainer.settings = data, settings
        if launched() > 1:  # DistributedDataParallel takes no sparse gradients of these: the optimizer averages them
            setattr(model, "_ddp_params_and_buffers_to_ignore", list(tables_of(model)))  # noqa: B010
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        if callback is not None:
            trainer.add_callback(callback)
        best = _KeepBest(settings) if stop_early and not folder else None
        if best is not None:
            trainer.add_callback(best)
        with _threads(settings.defaults.threads):
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        at = int(trainer.state.global_step)
        if at < batches.steps:
            kept = trainer.state.best_global_step if best is None else best.step
            tell_stopped(at, kept, batches, settings)
        trainer.accelerator.wait_for_everyone()  # no process takes the checkpoints away while another reads the best
        if best is not None and best.state is not None:
            model.load_state_dict(best.state)
    return at


def loss_floor(data: MatchDataset, settings: Settings) -> float:
    """Value below which no model brings the mean training loss.

    A perfect model reaches it, unless a batch contradicts itself: "one-positive" may hold an answer twice, and then
    takes it as right and as wrong.

    A batch's floor is the mean of `Objective.floor` over the queries that count, 0 where none does, as its loss is;
    the result is the mean over the batches of the first epoch. It is that of the graphs trained: a batch holds at most
    `settings.answers` right answers drawn for a query, unless it offers every candidate.
    """
    settings = settings.filled(data)
    objective, batches = OBJECTIVES[settings.loss], _batches(data, settings)
    total, number = 0.0, min(batches.steps_per_epoch * batches.processes, len(batches))
    for item in range(number):
        positives = batches[item].positives
        counts = (positives.with_none() if settings.none_candidate else positives).counts
        counted = counts[objective.counted(counts)]
        total += float(objective.floor(counted.double()).sum()) / max(1, len(counted))
    return total / number


def _batches(data: MatchDataset, settings: Filled) -> Batches:
    """The batches that settings ask for, divided among the processes there are."""
    return Batches(
        data,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        steps=settings.steps,
        answers=settings.answers,
        negatives=settings.negatives,
        seed=settings.seed,
        draw=settings.draw,
        near=nearest_wrong(data) if settings.lexical else None,
        processes=max(1, launched()),
    )


def _check_metric(data: MatchDataset, metric: str) -> None:
    if watched()[metric].group == NONE and data.answer_counts[data.split("dev")].all():
        others = ", ".join(name for name, one in watched().items() if one.group != NONE)
        raise ValueError(
            f"Expected `metric` to be one of {others} as every dev query has a right answer, got {metric!r}."
        )
