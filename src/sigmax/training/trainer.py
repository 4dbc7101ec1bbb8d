"""Adapters to Hugging Face's Trainer: batches, optimizer, callbacks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from sigmax.data.batches import Batches, training_weights
from sigmax.data.dataset import MatchDataset
from sigmax.data.pictures import Query
from sigmax.encoders import LabelTable
from sigmax.encoders.lexical import Lexical, Tokens
from sigmax.evaluation import quick_metrics
from sigmax.metrics.registry import watched
from sigmax.model.dual_encoder import DualEncoder
from sigmax.model.replay import Features
from sigmax.processes import launched
from sigmax.training.row_adamw import RowAdamW
from sigmax.training.settings import Filled

__all__ = ["Logged", "Progress"]


#: (step, total steps, latest metrics), called during training.
Progress = Callable[[int, int, dict[str, float]], None]


#: Called with (step, metrics) each time Trainer logs; "loss" is the mean over the steps since it was last logged.
Logged = Callable[[int, dict[str, float]], None]


#: Learning rate of the logarithms of words' weights, whatever the encoder's: a step changes a weight by 5%, at most.
LEXICAL_RATE = 0.05
#: Letters of texts whose tokens are all held while training goes on, at some five bytes each.
MOST_LETTERS = 2**24


class _Steps(torch.utils.data.Dataset[dict[str, Any]]):
    """Batch t as the model's arguments. One item is one whole batch."""

    def __init__(self, model: DualEncoder, batches: Batches, mini_batch_size: int | None) -> None:
        self.model = model
        self.batches = batches
        self.mini_batch_size = mini_batch_size
        self.weights = training_weights(batches.data)
        self.tokens = None if model.lexical is None else _tokens(model.lexical, batches.data)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> dict[str, Any]:
        batch = self.batches[number]
        data = self.batches.data
        queries = [data.queries[i] for i in batch.queries]
        candidates = [data.candidates[j] for j in batch.candidates]
        made: dict[str, Any] = {
            "queries": self._features(queries, "query"),
            "candidates": self._features(candidates, "candidate"),
            "positives": batch.positives,
        }
        if self.weights is not None:
            made["weights"] = self.weights[batch.queries]
        if self.tokens is not None:
            made["tokens"] = self.tokens[0].take(batch.queries), self.tokens[1].take(batch.candidates)
        elif self.model.lexical is not None:
            lexical = self.model.lexical
            made["tokens"] = lexical.tokens(queries, "query"), lexical.tokens(candidates, "candidate")
        return made

    def _features(self, items: Sequence[Query], side: str) -> Features | list[Features]:
        size = self.mini_batch_size
        if size is None or size >= len(items):
            return self.model.preprocess(items, side)
        return [self.model.preprocess(items[start : start + size], side) for start in range(0, len(items), size)]


def _tokens(lexical: Lexical, data: MatchDataset) -> tuple[Tokens, Tokens] | None:
    """Tokens of all queries and candidates, of which a batch takes its own; None of too many to hold."""
    texts = chain(data.queries, data.candidates)
    if len(data.queries) + len(data.candidates) > MOST_LETTERS or sum(len(str(text)) for text in texts) > MOST_LETTERS:
        return None
    return lexical.tokens(data.queries, "query"), lexical.tokens(data.candidates, "candidate")


def _only(items: list[Any]) -> Any:
    return items[0]


class _Trainer(Trainer):
    """Trainer with our dev metrics, and one rate for scale and bias, another for the rest."""

    data: MatchDataset
    settings: Filled
    optimizer: torch.optim.Optimizer | None
    control: Any

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.model, self.settings)
            self.add_callback(_Settle(self.optimizer))
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
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in quick_metrics(self.model, self.data).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def make_optimizer(model: DualEncoder, settings: Filled) -> RowAdamW:
    """Make AdamW with the encoder's ε, and rates for encoders, label vectors, and scale and bias; see `RowAdamW`."""
    defaults, rate = settings.defaults, settings.learning_rate
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
    if model.lexical is not None:
        groups.setdefault(LEXICAL_RATE, []).append(model.lexical.theta)
        groups.setdefault(rate * defaults.scale_rate, []).append(model.lexical.log_weights)
    return RowAdamW(
        [{"params": parameters, "lr": lr} for lr, parameters in groups.items() if parameters],
        eps=defaults.epsilon,
        tables=tables_of(model).values(),
    )


def tables_of(model: DualEncoder) -> dict[str, nn.Parameter]:
    """Parameters of which a batch reads few rows, by name."""
    learnt = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    names = [f"{name}.{table}" for name, module in model.named_modules() for table in getattr(module, "tables", ())]
    return {name: learnt[name] for name in names if name in learnt}


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(count or before, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _arguments(
    folder: Path, settings: Filled, batches: Batches, evaluate: bool, save: bool, report_to: str
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
        greater_is_better=watched()[settings.metric].better == "higher",
        restore_callback_states_from_checkpoint=True,
        logging_steps=max(1, min(each_epoch // 4, batches.steps // 20)),
        logging_nan_inf_filter=False,
        report_to=report_to,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if launched() and not torch.cuda.is_available() else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


class _Report(TrainerCallback):
    """Hands steps and latest metrics to a progress function, and metrics to whoever wants them when they are logged."""

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


class _Settle(TrainerCallback):
    """Brings all rows of tables up to date after each epoch, before the model is measured, copied or saved.

    After each, measured or not: a run that was resumed takes the same steps in the same parts as one that was not.
    """

    def __init__(self, optimizer: RowAdamW) -> None:
        self.optimizer = optimizer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % args.eval_steps == 0 or state.global_step >= state.max_steps:
            self.optimizer.settle()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.optimizer.close()


class _KeepBest(TrainerCallback):
    """Early stopping without files: keeps the best epoch's parameters in memory."""

    def __init__(self, settings: Filled) -> None:
        self.settings = settings
        self.best = -math.inf
        self.since = 0
        self.step = 0
        self.state: dict[str, torch.Tensor] | None = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        metrics, model = given["metrics"], given["model"]
        value = watched()[self.settings.metric].goodness(metrics[f"eval_{self.settings.metric}"])
        if value > self.best:
            self.best, self.since, self.step = value, 0, state.global_step
            self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        else:
            self.since += 1
            control.should_training_stop |= self.since >= self.settings.patience
