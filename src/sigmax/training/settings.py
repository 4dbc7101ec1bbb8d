"""Training settings: each field carries what help says about it and what it may be."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from sigmax.training.option import Option

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset
    from sigmax.encoders.choose import Chosen
    from sigmax.encoders.plan import Defaults

__all__ = ["PRECISIONS", "Filled", "Settings", "options"]

#: Precision of matrix products in training; parameters stay float32.
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """Training settings. None means: chosen from the encoder and the data.

    Args:
        loss: a name in `OBJECTIVES`.
        encoder: see `sigmax.encoders.build_towers`; None or "auto": chosen from the data, see
            `sigmax.encoders.choose_encoder`.
        head: how labels are scored, a name in `HEADS`; None: linear for a frozen encoder, else cosine.
        frozen: keep a pretrained encoder as it is, encode every text or picture once, train what follows it. With a
            linear head that is a convex problem, which is solved: epochs, batch sizes, rates and scales do not matter.
            Texts on both sides get one linear layer, which starts as the identity, beside the shared words.
        two_towers: candidates that are texts get an encoder of their own.
        augment: what training does to pictures, a name in `AUGMENTATIONS`; None: depends on their size.
        lexical: where both sides are texts, let the words that they share add to the logit, see
            `sigmax.encoders.lexical.Lexical`; not where several processes train.
        rerank: a cross-encoder of sentence-transformers, or a transformer that becomes one, trained to read a query
            together with its best candidates, see `sigmax.model.reranker.Reranker`; None for none.
        rerank_depth: how many of the best candidates it reads.
        none_candidate: train one more candidate, *none of these*, right for the queries that have no right answer:
            what a softmax needs to learn from them.
        epochs: passes over the training queries, at most; 0: a pretrained encoder as it is, calibrated on dev.
        steps: steps per process, instead of epochs.
        batch_size: queries per batch and process.
        mini_batch_size: encode this many texts or pictures at a time: less memory, each encoded twice; None for all
            at once.
        learning_rate: peak rate; it rises over the first tenth of the steps and falls linearly to 0.
        logit_scale: initial logit scale.
        answers: maximum right answers drawn per query in a batch.
        negatives: candidates drawn at random beside those, see `Batches`; None: all, if there are few.
        draw: how a batch is made, a name in `DRAWS`.
        metric: the dev metric that decides which epoch is kept, a name in `sigmax.metrics.registry.watched()`.
        patience: epochs without a better metric before training stops.
        precision: precision of matrix products: float32, bfloat16 or float16 (automatic mixed precision); None:
            bfloat16 for a transformer where the processor has instructions for it, else float32. Parameters, sums and
            losses are float32, and so is all that is done with a trained model.
        seed: random seed.

    Raises:
        UnknownNameError: a name that is not registered.
        ValueError: a number out of bounds.
    """

    loss: Annotated[str, Option("Loss: {choices}.", choices="sigmax.families:OBJECTIVES")] = "softmax-decoupled"
    encoder: Annotated[
        str | None,
        Option(
            "Encoder: {choices}, or a sentence-transformers model or static vectors by name or path. Default: auto, "
            "chosen from the data.",
            group="model",
            choices="sigmax.encoders:ENCODERS",
            open=True,
        ),
    ] = None
    head: Annotated[
        str | None,
        Option(
            "How labels are scored: {choices}; linear has one weight per label and coordinate, and a bias per label; "
            "ngrams has one per label and n-gram besides. Default: linear with --frozen, else cosine.",
            group="model",
            choices="sigmax.encoders:HEADS",
        ),
    ] = None
    frozen: Annotated[
        bool, Option("Keep a pretrained encoder as it is and train only what follows it.", group="model")
    ] = False
    two_towers: Annotated[bool, Option("Give candidates that are texts an encoder of their own.", group="model")] = (
        False
    )
    augment: Annotated[
        str | None,
        Option(
            "How training varies pictures: {choices}. upright turns, zooms and moves them a little; mirrored also "
            "mirrors them, which is wrong for digits, letters and signs. Default: upright; none for tiny pictures.",
            group="model",
            choices="sigmax.encoders:AUGMENTATIONS",
        ),
    ] = None
    lexical: Annotated[
        bool,
        Option(
            "Beside the encoder, count the words that both texts share: BM25, its weights trained along.",
            group="model",
            flags=("--lexical/--no-lexical",),
        ),
    ] = True
    rerank: Annotated[
        str | None,
        Option(
            "A second look: train this cross-encoder of sentence-transformers, or a transformer such as "
            "all-MiniLM-L6-v2, to read a query together with its best candidates.",
            group="model",
            shown="NAME",
        ),
    ] = None
    rerank_depth: Annotated[
        int, Option("How many of the best candidates it reads.", group="model", shown="K", least=1)
    ] = 20
    none_candidate: Annotated[
        bool,
        Option("Train *none of these* as one more candidate, right where no other is.", group="model"),
    ] = False
    epochs: Annotated[
        float | None,
        Option(
            "Passes over the training queries; 0: the encoder as it is, calibrated on dev. Default: depends on the "
            "encoder.",
            shown="N",
            least=0,
        ),
    ] = None
    steps: Annotated[int | None, Option("Steps per run, instead of epochs.", shown="N", least=1)] = None
    batch_size: Annotated[
        int | None, Option("Queries per batch. Default: depends on the encoder.", shown="N", least=1)
    ] = None
    mini_batch_size: Annotated[
        int | None,
        Option("Encode this many texts at a time: less memory, each text encoded twice.", shown="N", least=1),
    ] = None
    learning_rate: Annotated[
        float | None, Option("Peak learning rate. Default: depends on the encoder.", shown="X", above=0)
    ] = None
    logit_scale: Annotated[
        float | None, Option("Initial logit scale. Default: depends on the encoder.", shown="X", above=0)
    ] = None
    answers: Annotated[int, Option("Maximum right answers drawn per query in a batch.", shown="N", least=1)] = 4
    negatives: Annotated[
        int | None,
        Option("Candidates drawn at random per batch beside the answers. Default: all, if few.", shown="N", least=0),
    ] = None
    draw: Annotated[str, Option("How a batch is made: {choices}.", choices="sigmax.data.batches:DRAWS")] = (
        "known-positives"
    )
    metric: Annotated[
        str,
        Option(
            "Dev metric by which epochs and settings are chosen: {choices}.", choices="sigmax.metrics.registry:watched"
        ),
    ] = "map"
    patience: Annotated[
        int, Option("Epochs without a better dev metric before training stops.", shown="N", least=1)
    ] = 3
    precision: Annotated[
        str | None,
        Option(
            "Precision of matrix products in training: {choices}. Default: bfloat16 for a transformer where the "
            "processor has instructions for it, else float32.",
            choices="sigmax.training.settings:PRECISIONS",
        ),
    ] = None
    seed: Annotated[int, Option("Random seed.", shown="N", least=0)] = 0

    def __post_init__(self) -> None:
        """Check what can be checked without data; what is as it was declared needs no look at a registry."""
        for name, option in options().items():
            value = getattr(self, name)
            if value != getattr(Settings, name):
                option.check(name, value)

    def filled(self, data: MatchDataset) -> Filled:
        """Return the settings with nothing left to choose, on this data."""
        from sigmax.encoders.build import default_head, defaults_of
        from sigmax.encoders.choose import choose_encoder
        from sigmax.processes import launched
        from sigmax.training.precision import has_bfloat16

        chosen = choose_encoder(data) if self.encoder in (None, "auto") else None
        encoder = str(self.encoder) if chosen is None else chosen.encoder
        frozen = self.frozen or (chosen is not None and chosen.frozen and self.epochs != 0)
        head = self.head or ("cosine" if self.epochs == 0 else default_head(frozen, data))
        defaults = defaults_of(encoder, data, frozen=frozen, head=head)
        return Filled(
            **self.as_dict()
            | {
                "encoder": encoder,
                "frozen": frozen,
                "head": head,
                "epochs": defaults.epochs if self.epochs is None else self.epochs,
                "batch_size": self.batch_size or defaults.batch_size,
                "learning_rate": self.learning_rate or defaults.learning_rate,
                "logit_scale": self.logit_scale or defaults.logit_scale,
                "precision": self.precision or ("bfloat16" if defaults.half and has_bfloat16() else "float32"),
                "lexical": self.lexical and not (data.labels or data.pictures or launched() > 1),
            },
            defaults=defaults,
            chosen=chosen,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name, for JSON."""
        return {entry.name: getattr(self, entry.name) for entry in fields(Settings)}


@dataclass(frozen=True, kw_only=True)
class Filled(Settings):
    """Settings with nothing left to choose: what training reads.

    Args:
        defaults: all that suits the encoder on the data, also what no setting names.
        chosen: why it has this encoder; None if it was asked for.
    """

    encoder: str = field()
    head: str = field()
    epochs: float = field()
    batch_size: int = field()
    learning_rate: float = field()
    logit_scale: float = field()
    precision: str = field()
    defaults: Defaults = field(repr=False)
    chosen: Chosen | None = field(repr=False, default=None)

    def filled(self, data: MatchDataset) -> Filled:
        """Return the settings themselves."""
        return self


@cache
def options() -> dict[str, Option]:
    """Return each setting's `Option`, by its name."""
    hints = get_type_hints(Settings, include_extras=True)
    return {entry.name: hints[entry.name].__metadata__[0] for entry in fields(Settings)}
