"""Training a DualEncoder on Hugging Face's Trainer: precision, checkpoints, resume, early stopping, torchrun."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from sigmax.card import told_encoder
from sigmax.data.batches import DRAWS, Batches
from sigmax.data.dataset import MatchDataset
from sigmax.data.pictures import Query
from sigmax.encoders import AUGMENTATIONS, HEADS, Defaults, LabelTable, Plan, build_towers, default_encoder, defaults_of
from sigmax.errors import DataError, check_least, lookup
from sigmax.evaluation import WATCHED, calibrate, quick_figures
from sigmax.families import OBJECTIVES
from sigmax.files import write_text
from sigmax.losses import make_loss
from sigmax.metrics import NONE_SCORES, RANKING
from sigmax.model import DualEncoder, Features

__all__ = ["PRECISIONS", "Logged", "Progress", "Settings", "build_model", "loss_floor", "train"]

log = logging.getLogger("sigmax")

#: Precision of the products in training; parameters stay float32.
PRECISIONS = ("float32", "bfloat16", "float16")

#: Called with (steps done, steps in all, latest figures) as training goes on.
Progress = Callable[[int, int, dict[str, float]], None]
#: Called with (step, figures) each time Trainer logs; "loss" is the mean over the steps since it was last logged.
Logged = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Settings:
    """How to train. What is None is filled in from the encoder and the data.

    Args:
        loss: a name in `OBJECTIVES`.
        encoder: see `sigmax.encoders.build_towers`; None: ngrams for texts, convnet for pictures.
        two_towers: candidates that are texts get an encoder of their own.
        head: how labels are scored, a name in `HEADS`.
        frozen: keep a pretrained encoder as it is, encode every query once, train what comes after it.
        augment: what training does to pictures, a name in `AUGMENTATIONS`; None: what suits their size.
        epochs: passes over the training queries, at most.
        steps: batches a process, instead of epochs.
        batch_size: queries a batch and process.
        mini_batch_size: texts or pictures encoded at a time, so that a large batch needs the memory of a small one and
            encodes twice; None for all at once.
        learning_rate: highest rate; it rises over the first tenth of the steps and falls linearly to 0.
        logit_scale: where the scale starts.
        answers: right answers drawn a query and batch, at most.
        negatives: candidates drawn at random beside those, see `Batches`.
        draw: how a batch is made, a name in `DRAWS`.
        none_candidate: train one more candidate, *none of these*, right for the queries that have no right answer:
            what a softmax needs to learn from them.
        metric: the dev figure that decides which epoch is kept.
        patience: epochs without a better figure before training stops.
        precision: of the products: float32, bfloat16 or float16 (automatic mixed precision).
        seed: of everything random.
    """

    loss: str = "softmax-decoupled"
    encoder: str | None = None
    two_towers: bool = False
    head: str = "cosine"
    frozen: bool = False
    augment: str | None = None
    epochs: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    mini_batch_size: int | None = None
    learning_rate: float | None = None
    logit_scale: float | None = None
    answers: int = 4
    negatives: int | None = None
    draw: str = "known-positives"
    none_candidate: bool = False
    metric: str = "map"
    patience: int = 3
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        lookup(OBJECTIVES, self.loss, "loss")
        lookup(DRAWS, self.draw, "draw")
        lookup(HEADS, self.head, "head")
        if self.augment is not None:
            lookup(AUGMENTATIONS, self.augment, "augment")
        lookup(dict.fromkeys(PRECISIONS), self.precision, "precision")
        lookup(dict.fromkeys(WATCHED), self.metric, "metric")
        check_least(
            1,
            steps=self.steps,
            batch_size=self.batch_size,
            mini_batch_size=self.mini_batch_size,
            answers=self.answers,
            patience=self.patience,
        )
        check_least(0, negatives=self.negatives, seed=self.seed)
        for name in ("epochs", "learning_rate", "logit_scale"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"Expected `{name}` above 0, got {value}.")

    def filled(self, data: MatchDataset) -> Settings:
        """Return the settings with nothing left open."""
        encoder = self.encoder or default_encoder(data)
        defaults = defaults_of(encoder, data, frozen=self.frozen)
        return replace(
            self,
            encoder=encoder,
            epochs=self.epochs or defaults.epochs,
            batch_size=self.batch_size or defaults.batch_size,
            learning_rate=self.learning_rate or defaults.learning_rate,
            logit_scale=self.logit_scale or defaults.logit_scale,
        )


def build_model(data: MatchDataset, settings: Settings, batches: Batches) -> DualEncoder:
    """Build an untrained model: scale as set, bias at the log odds of a right pair in a batch."""
    settings = settings.filled(data)
    plan = Plan(settings.seed, settings.two_towers, settings.head, settings.frozen, settings.augment)
    towers = build_towers(settings.encoder or "", data, plan)
    rate = min(max(batches.positive_rate(), 1e-6), 1 - 1e-6)
    loss = make_loss(
        settings.loss,
        logit_scale=settings.logit_scale or 1.0,
        logit_bias=math.log(rate / (1 - rate)),
        similarity=towers.similarity,
        gather_across_devices=batches.processes > 1,
    )
    model = DualEncoder(
        towers.query,
        towers.candidate,
        loss,
        candidates=data.candidates,
        candidate_ids=data.candidate_ids,
        pictures=data.pictures,
    )
    if settings.none_candidate:
        if batches.processes > 1:
            raise ValueError("Expected one process for `none_candidate`: each would bring a candidate of its own.")
        typical = model.encode(data.candidates[:1], "candidate")[0]
        drawn = torch.randn(len(typical), generator=torch.Generator().manual_seed(settings.seed))
        model.none_vector = nn.Parameter(drawn * typical.norm() / drawn.norm())
    return model


def train(
    data: MatchDataset,
    settings: Settings | None = None,
    *,
    checkpoints: str | Path | None = None,
    resume: bool = False,
    stop_early: bool = True,
    progress: Progress | None = None,
    logged: Logged | None = None,
    tell: bool = True,
    report_to: str = "none",
    calibrated: bool = True,
) -> DualEncoder:
    """Train a model, keep its best epoch, calibrate it on dev.

    Args:
        data: what to train on.
        settings: how; the defaults if None.
        checkpoints: a folder for a checkpoint each epoch, from which a run that was killed goes on; None for none.
        resume: go on from the last whole checkpoint. The result is the same as that of an unbroken run.
        stop_early: watch `settings.metric` on dev each epoch, stop when it stays behind, return the best epoch.
            Without it the last epoch is returned.
        progress: called as training goes on.
        logged: called when figures are logged.
        tell: log sizes, and how many queries the loss leaves out.
        report_to: Trainer's loggers, such as "tensorboard" or "wandb".
        calibrated: fit presence, P(any) and rules on dev in the end.

    Returns:
        The trained model.

    Raises:
        DataError: data without anything to learn from, or checkpoints of other settings.
        ValueError: settings out of range, or a loss that is not finite.
    """
    given = settings or Settings()
    settings = given.filled(data)
    batches = _batches(data, settings)
    check_answers(data)
    _check_metric(data, settings.metric)
    if tell:
        _tell(data, settings, batches)
    model = build_model(data, settings, batches)
    folder = None if checkpoints is None else Path(checkpoints)
    last = (
        _prepare_checkpoints(folder, asdict(settings) | {"data": data.name, "content": data.fingerprint}, resume)
        if folder
        else None
    )
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
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        if progress is not None or logged is not None:
            trainer.add_callback(_Report(progress, logged))
        best = _KeepBest(settings) if stop_early and not folder else None
        if best is not None:
            trainer.add_callback(best)
        with _threads(_defaults(settings, data).threads):
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        trainer.accelerator.wait_for_everyone()  # no process takes the checkpoints away while another reads the best
        if best is not None and best.state is not None:
            model.load_state_dict(best.state)
    model.eval()
    if calibrated:
        calibrate(model, data)
    model.facts = {
        "data": data.name,
        "queries": len(data.queries),
        "candidates": len(data.candidates),
        "labels": data.labels,
        "splits": {name: len(queries) for name, queries in data.splits.items()},
        "unanswered": {name: data.unanswered(name) for name in data.splits},
        "settings": asdict(settings) | {"encoder": told_encoder(settings.encoder or "")},
        "steps": trainer.state.global_step,
    }
    return model


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


def _batches(data: MatchDataset, settings: Settings) -> Batches:
    """The batches that settings with nothing left open ask for, shared by the processes there are."""
    return Batches(
        data,
        batch_size=settings.batch_size or 1,
        epochs=settings.epochs or 1,
        steps=settings.steps,
        answers=settings.answers,
        negatives=settings.negatives,
        seed=settings.seed,
        draw=settings.draw,
        processes=int(os.environ.get("WORLD_SIZE", "1")),
    )


# -- how Trainer sees it ------------------------------------------------------------------------


class _Steps(torch.utils.data.Dataset[dict[str, Any]]):
    """Batch t as the model's arguments. One item is one whole batch."""

    def __init__(self, model: DualEncoder, batches: Batches, mini_batch_size: int | None) -> None:
        self.model = model
        self.batches = batches
        self.mini_batch_size = mini_batch_size

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> dict[str, Any]:
        batch = self.batches[number]
        data = self.batches.data
        return {
            "queries": self._features([data.queries[i] for i in batch.queries], "query"),
            "candidates": self._features([data.candidates[j] for j in batch.candidates], "candidate"),
            "positives": batch.positives,
        }

    def _features(self, items: Sequence[Query], side: str) -> Features | list[Features]:
        size = self.mini_batch_size
        if size is None or size >= len(items):
            return self.model.preprocess(items, side)
        return [self.model.preprocess(items[start : start + size], side) for start in range(0, len(items), size)]


def _only(items: list[Any]) -> Any:
    return items[0]


class _Trainer(Trainer):  # type: ignore[misc]
    """Trainer with our dev figures, and one rate for scale and bias, another for the rest."""

    data: MatchDataset
    settings: Settings
    optimizer: torch.optim.Optimizer | None
    control: Any

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.model, self.settings, self.data)
        return self.optimizer

    def _get_grad_norm(self, model: nn.Module, grad_norm: float | None = None) -> float | None:
        return None  # gradients are not clipped; their norm would cost a pass over a table

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # safetensors takes no layout but the plain one; convolutions are faster with channels last
        state = self.model.state_dict() if state_dict is None else state_dict
        super()._save(output_dir, {name: tensor.contiguous() for name, tensor in state.items()})

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (RuntimeError, SafetensorError) as error:  # what torch and safetensors make of a full disk
            raise OSError(
                f"{self.args.output_dir}: a checkpoint could not be written ({error}). Is the disk full?"
            ) from error

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        figures = {f"{metric_key_prefix}_{k}": v for k, v in quick_figures(self.model, self.data).items()}
        self.log(dict(figures))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures


def _defaults(settings: Settings, data: MatchDataset) -> Defaults:
    return defaults_of(settings.encoder or default_encoder(data), data, frozen=settings.frozen)


def make_optimizer(model: DualEncoder, settings: Settings, data: MatchDataset) -> torch.optim.Optimizer:
    """AdamW with the ε that suits the encoder, and rates for encoders, label vectors, and scale and bias."""
    defaults = _defaults(settings, data)
    rate = settings.learning_rate or defaults.learning_rate
    groups: dict[float, list[nn.Parameter]] = {}
    for module, factor in (
        (model.query_encoder, 1.0),
        (model.candidate_encoder, defaults.label_rate if isinstance(model.candidate_encoder, LabelTable) else 1.0),
    ):
        if module is not None:
            groups.setdefault(rate * factor, []).extend(p for p in module.parameters() if p.requires_grad)
    if model.none_vector is not None:
        groups.setdefault(rate * defaults.label_rate, []).append(model.none_vector)
    groups.setdefault(rate * defaults.scale_rate, []).extend(model.loss.parameters())
    return torch.optim.AdamW(
        [{"params": parameters, "lr": lr} for lr, parameters in groups.items() if parameters],
        eps=defaults.epsilon,
        weight_decay=0.0,
        fused=True,
    )


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(count or before, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _arguments(
    folder: Path, settings: Settings, batches: Batches, evaluate: bool, save: bool, report_to: str
) -> TrainingArguments:
    each_epoch = max(1, batches.steps_per_epoch)
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,  # one item is one batch
        num_train_epochs=1,  # one pass over all batches of all epochs
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        label_names=[],
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        max_grad_norm=0.0,
        bf16=settings.precision == "bfloat16",
        fp16=settings.precision == "float16",
        seed=settings.seed,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=each_epoch,
        save_strategy="steps" if save else "no",
        save_steps=each_epoch,
        save_total_limit=2,
        load_best_model_at_end=evaluate and save,
        metric_for_best_model=f"eval_{settings.metric}",
        greater_is_better=True,  # of all that may be watched
        restore_callback_states_from_checkpoint=True,
        logging_steps=max(1, min(each_epoch // 4, batches.steps // 20)),
        logging_nan_inf_filter=False,
        report_to=report_to,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ and not torch.cuda.is_available() else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


class _Report(TrainerCallback):  # type: ignore[misc]
    """Hands steps and latest figures to a progress function, and figures to whoever wants them when they are logged."""

    def __init__(self, progress: Progress | None, logged: Logged | None) -> None:
        self.progress = progress
        self.logged = logged
        self.latest: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        self.latest.update(logs or {})
        if self.logged is not None and state.is_world_process_zero:
            self.logged(state.global_step, dict(logs or {}))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.progress is not None and state.is_world_process_zero:
            self.progress(state.global_step, state.max_steps, self.latest)


class _KeepBest(TrainerCallback):  # type: ignore[misc]
    """Early stopping without files: keeps the best epoch's parameters in memory."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.best = -math.inf
        self.since = 0
        self.state: dict[str, torch.Tensor] | None = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        metrics, model = given["metrics"], given["model"]
        value = metrics[f"eval_{self.settings.metric}"]
        if value > self.best:
            self.best, self.since = value, 0
            self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        else:
            self.since += 1
            control.should_training_stop |= self.since >= self.settings.patience


# -- checkpoints --------------------------------------------------------------------------------


def _prepare_checkpoints(folder: Path, settings: dict[str, Any], resume: bool) -> Path | None:
    """Ready the folder; return the last whole checkpoint if there is one to go on from.

    A kill while a checkpoint was written leaves a part of one with the highest number: it is removed. So is one at
    which patience had run out: from there training would go on where an unbroken run stopped; from the best before
    it, it stops at the same step again.
    """
    about = folder / "settings.json"
    first = int(os.environ.get("RANK", "0")) == 0  # the first process judges, writes and removes; the others follow
    if not resume:
        if not first:
            return None
        if any(folder.glob("checkpoint-*")):
            raise DataError(
                f"{folder}: holds the checkpoints of a run that did not finish. Go on with it (--resume), or start "
                "anew (--fresh)."
            )
        write_text(about, json.dumps(settings, indent=2) + "\n")
        return None
    if not about.exists():
        if not first:
            return None
        log.warning("%s: no checkpoint to go on from; starting at the beginning.", folder)
        write_text(about, json.dumps(settings, indent=2) + "\n")
        return None
    before = json.loads(about.read_text(encoding="utf-8"))
    changed = [f"{name} {before.get(name)} → {value}" for name, value in settings.items() if before.get(name) != value]
    if changed:
        raise DataError(
            f"{folder}: holds checkpoints of a run with other settings ({'; '.join(changed)}). Use the same, or start "
            "anew (--fresh)."
        )
    numbered = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    while numbered and not _can_go_on(numbered[-1]):
        passed_over = numbered.pop()
        if first:
            shutil.rmtree(passed_over)
    return numbered[-1] if numbered else None


def _can_go_on(checkpoint: Path) -> bool:
    """Whether everything that resuming needs is there, and patience is left: Trainer writes trainer_state.json last."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    needed = ("model.safetensors", "optimizer.pt", "scheduler.pt")
    patience = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback")
    if (
        patience
        and patience["attributes"]["early_stopping_patience_counter"] >= patience["args"]["early_stopping_patience"]
    ):
        return False
    return (
        state.get("global_step") == int(checkpoint.name.rpartition("-")[2])
        and all((checkpoint / name).exists() for name in needed)
        and any(checkpoint.glob("rng_state*.pth"))
    )


def check_answers(data: MatchDataset, splits: Sequence[str] = ("train", "dev")) -> None:
    """Check that each split has a right answer.

    Raises:
        DataError: one that has none.
    """
    for name in splits:
        if not data.answer_counts[data.split(name)].any():
            what = "measure" if name == "test" else "learn from"
            raise DataError(f"{data.name}: no {name} query has a right answer; there is nothing to {what}.")


def _check_metric(data: MatchDataset, metric: str) -> None:
    if metric in NONE_SCORES.values() and data.answer_counts[data.split("dev")].all():
        raise ValueError(
            f"Expected `metric` to be one of {', '.join(RANKING)} as every dev query has a right answer, "
            f"got {metric!r}."
        )


def _tell(data: MatchDataset, settings: Settings, batches: Batches) -> None:
    unanswered = data.unanswered("train")
    log.info(
        "%d training queries, %d candidates, %d steps.", len(data.split("train")), len(data.candidates), len(batches)
    )
    if unanswered and OBJECTIVES[settings.loss].needs_positive and not settings.none_candidate:
        log.info(
            "%d of the training queries have no right answer: %s leaves them out (a sigmoid would learn from them).",
            unanswered,
            settings.loss,
        )
