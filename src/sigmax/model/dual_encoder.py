"""DualEncoder: two encoders, a loss that holds scale and bias, and a calibrator; save, load, match."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sigmax.arrays import Logits, row_blocks
from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.curves import Calibration
from sigmax.data.pictures import Item, Query, as_queries
from sigmax.encoders.labels import has_biases, unit_with_constant
from sigmax.encoders.lengths import by_length
from sigmax.encoders.module import as_inputs, encodes
from sigmax.evaluation import Evaluation
from sigmax.kernels.function import apply
from sigmax.losses import MatchLoss
from sigmax.model.card import model_card, noted
from sigmax.model.folder import FEW, PARTS, Parts, find_folder, read_folder, write_folder
from sigmax.model.hub import publish
from sigmax.model.matcher import Matcher
from sigmax.model.matches import PAIR_BLOCK, Offer, Rated, rate
from sigmax.model.remembered import novelty_of
from sigmax.model.replay import Features, Replayed
from sigmax.model.searched import Searched
from sigmax.model.stored import held, listed, same
from sigmax.model.vectors import CANDIDATE_BLOCK, Tile, Vectors, in_parts, tiled
from sigmax.positives import Positives
from sigmax.processes import rank, world_size

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sigmax.calibration.novelty import Novelty
    from sigmax.encoders.lexical import Lexical, Tokens
    from sigmax.model.reranker import Reranker

__all__ = ["DualEncoder", "load"]


class DualEncoder(nn.Module, Matcher):
    """Matches queries to candidates: encoders, scale, bias, and what turns logits into presences.

    Args:
        query_encoder: texts or pictures to vectors, a sentence-transformers module.
        candidate_encoder: the same for candidates; None where the query encoder serves both.
        loss: the objective with its scale, bias and similarity.
        candidates: what `match` offers.
        candidate_ids: their ids; the candidates themselves if not given.
        candidate_vectors: of the m candidates, prepared by the loss, where they need not be encoded again.
        lexical: what the words that two texts share add to the logit; None for nothing.
        reranker: a second look at the best candidates, where both sides are texts; None for none.
        none_vector: (d,) of one more candidate, *none of these*, which training takes as right for the queries that
            have no right answer and as wrong for all others; None to train without. `match` never offers it.
        pictures: whether queries are pictures.
        novelty: what is kept of the training queries, see `sigmax.model.remembered`; None for nothing.
        calibrator: logits to presences, P(any) and decisions, fitted on the dev split.
        facts: what the model was trained on and how, for people.
    """

    lexical: Lexical | None
    accepts_loss_kwargs = False  # read by Trainer: the loss is a mean over the batch already
    _keys_to_ignore_on_save = None  # read by Trainer when it loads a checkpoint

    def __init__(
        self,
        query_encoder: nn.Module,
        candidate_encoder: nn.Module | None,
        loss: MatchLoss,
        *,
        candidates: Sequence[str] = (),
        candidate_ids: Sequence[str] = (),
        candidate_vectors: Vectors | None = None,
        lexical: Lexical | None = None,
        reranker: Reranker | None = None,
        none_vector: Tensor | None = None,
        pictures: bool = False,
        novelty: Novelty | None = None,
        calibrator: Calibrator | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.query_encoder = query_encoder
        self.candidate_encoder = candidate_encoder
        self.loss = loss
        self.lexical = lexical
        self.reranker = reranker
        self.candidates, self.candidate_ids = listed(candidates), listed(candidate_ids or candidates)
        #: Many candidates and their vectors, encoded once; forgotten when training begins.
        self._kept: tuple[Sequence[str], Vectors] | None = None
        if candidate_vectors is not None:
            self._kept = held(self.candidates), self._seen(candidate_vectors, self.candidates, "candidate")
        self.none_vector = None if none_vector is None else nn.Parameter(none_vector.detach().clone())
        self.pictures = pictures
        self.novelty = novelty
        self.calibrator = calibrator
        self.facts = dict(facts or {})

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.loss.log_scale.device

    @property
    def calibration(self) -> Calibration | None:
        """The curve from logit to presence; None if the model was not calibrated."""
        return None if self.calibrator is None else self.calibrator.calibration

    # -- training --------------------------------------------------------------------------------

    def preprocess(self, items: Sequence[Query], side: str) -> Features:
        """Texts or pictures -> the features of the encoder of that side, "query" or "candidate"."""
        encoder = self._encoder(side)
        return encodes(encoder).preprocess(as_inputs(encoder, items))

    def embed(self, features: Features | list[Features], side: str) -> Tensor:
        """Features -> (b, d) vectors, with gradient.

        A list of features is encoded part by part, and each part's activations are forgotten: backward encodes it
        again, with the same dropout, when the gradient at its vectors has come (GradCache: Gao et al. 2021). The
        gradients are those of encoding all at once; the memory is that of one part.
        """
        if isinstance(features, list):
            learnt = [parameter for parameter in self._encoder(side).parameters() if parameter.requires_grad]
            return torch.cat([apply(Replayed, self.embed, part, side, *learnt) for part in features])
        vectors = by_length(self._encoder(side), features)
        return unit_with_constant(vectors) if side == "query" and has_biases(self.candidate_encoder) else vectors

    def forward(
        self,
        queries: Features | list[Features],
        candidates: Features | list[Features],
        positives: Positives,
        tokens: tuple[Tokens, Tokens] | None = None,
        weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Features of both sides, right pairs, tokens for the lexical view, queries' weights -> {"loss": ()}."""
        asked, offered = self.embed(queries, "query"), self.embed(candidates, "candidate")
        if self.none_vector is not None:
            none = self.none_vector[None].to(offered.dtype)
            last = not self.loss.gather_across_devices or rank() + 1 >= world_size()
            # Of many processes the last brings it, behind the candidates of all; to the others it is worth nothing.
            offered = torch.cat([offered, none]) if last else offered + 0 * none
            positives = positives.with_none()
        if self.lexical is None or tokens is None:
            return {"loss": self.loss(asked, offered, positives, weights=weights)}
        shared = self.lexical(*tokens, columns=len(offered))  # *none of these* has no words; memory: n × m
        return {"loss": self.loss.from_logits(self.loss.logits(asked, offered) + shared, positives, weights=weights)}

    # -- use -------------------------------------------------------------------------------------

    def encode(self, items: Sequence[Query], side: str = "query", *, batch_size: int | None = None) -> Tensor:
        """Texts or pictures -> (b, d) vectors on the CPU, without gradient; 512 texts or 64 pictures at a time."""
        return self._encode(items, side, batch_size, lambda vectors: vectors)

    @torch.no_grad()
    def _encode(
        self, items: Sequence[Query], side: str, batch_size: int | None, prepare: Callable[[Tensor], Tensor]
    ) -> Tensor:
        was_training = self.training
        self.eval()

        def encoded(part: Sequence[Query]) -> Tensor:
            features = {
                name: value.to(self.device) if isinstance(value, Tensor) else value
                for name, value in self.preprocess(part, side).items()
            }
            return prepare(self.embed(features, side).float()).cpu()

        vectors = in_parts(encoded, items, batch_size or (64 if self.pictures and side == "query" else 512))
        self.train(was_training)
        return vectors

    def vectors(self, items: Sequence[Query], side: str = "query") -> Vectors:
        """Encode items for `logits_of`; see `encode`."""
        return self._seen(Vectors(self._encode(items, side, None, self.loss.prepare)), items, side)

    def _seen(self, made: Vectors, items: Sequence[Query], side: str) -> Vectors:
        untold = self.lexical if made.tokens is None else None
        tokens = made.tokens if untold is None else untold.tokens(items, side)
        return Vectors(made.dense, tokens, None if self.reranker is None else items)

    def candidate_vectors(self, candidates: Sequence[str]) -> Vectors:
        """Encode candidates, or, of more than `FEW`, take the vectors kept since they were encoded last or loaded."""
        if self._kept is not None and same(self._kept[0], candidates):
            return self._kept[1]
        vectors = self.vectors(candidates, "candidate")
        if len(candidates) > FEW and not self.training:
            self._kept = held(candidates), vectors
        return vectors

    def train(self, mode: bool = True) -> DualEncoder:
        """Go into training mode, or out of it; training forgets vectors that were kept."""
        if mode:
            self._kept = None
        return super().train(mode)

    def logits_of(self, queries: Vectors, candidates: Vectors) -> Tensor:
        """Make logits of vectors, (n, m): s = logit_scale · similarity + logit_bias + what shared words add.

        Everything that reads a model's logits outside training gets them here; a second look comes after it.
        """
        logits = self.loss.prepared_logits(queries.dense.float(), candidates.dense.float())
        if self.lexical is not None and queries.tokens is not None and candidates.tokens is not None:
            logits += torch.from_numpy(self.lexical.scores(queries.tokens, candidates.tokens)).to(logits.device)
        return logits

    @torch.no_grad()
    def tiles(
        self, queries: Vectors, candidates: Vectors, *, height: int = 1024, width: int = CANDIDATE_BLOCK
    ) -> Iterator[Tile]:
        """Make the logits of every query over every candidate, in tiles of at most `height` rows and `width` columns.

        All columns of a block of rows come first. A ValueError tells of logits that are not finite.
        """
        yield from tiled(self.logits_of, queries, candidates.to(self.device), height, width)

    def logits(self, queries: Sequence[Query], candidates: Sequence[str]) -> Logits:
        """Return the logits of every query over every candidate, and of *none of these* if trained; see `tiles`."""
        return self._logits(self.vectors(queries), self.candidate_vectors(candidates))

    def logit_blocks(
        self, queries: Sequence[Query], candidates: Sequence[str], *, height: int
    ) -> Iterator[tuple[slice, Logits]]:
        """Make the logits of some queries over every candidate, then of the next; both sides are encoded once.

        See `sigmax.scan.BlockScorer`. Yields which queries, and their logits, which the next block overwrites.
        """
        query_vectors, candidate_vectors = self.vectors(queries), self.candidate_vectors(candidates)
        block = np.empty((min(height, len(queries)), len(candidates)), np.float32)
        for top in range(0, len(queries), height):
            rows = slice(top, min(top + height, len(queries)))
            yield rows, self._logits(query_vectors[rows], candidate_vectors, block[: rows.stop - top])

    def as_queries(self, items: Sequence[Item]) -> list[Query]:
        """Check texts, or make pictures of what stands for them.

        Raises:
            ValueError: something that is not a text, or an empty one.
            DataError: something that is not a picture.
        """
        return as_queries(items, pictures=self.pictures)

    def offer(self, *, exact: bool = False) -> Offer | Searched:
        """Encode the candidates, for `rate`; or, unless it must be exact, give the store that `searched` names.

        Raises:
            ValueError: a model without candidates.
        """
        if self.searched is not None and not exact:
            return self.searched
        if not self.candidates:
            raise ValueError("The model has no candidates to offer. Set model.candidates to a list of texts.")
        return Offer(held(self.candidates), held(self.candidate_ids), self.candidate_vectors(self.candidates))

    def rate(self, queries: Sequence[Query], offer: Offer | Searched) -> Iterator[Rated]:
        """Rate every candidate of an offer for each query, or those that a store finds, some queries at a time.

        Raises:
            ValueError: logits that are not finite.
            DataError: a picture that cannot be read.
            UnavailableError: a store that cannot be reached just now.
        """
        if isinstance(offer, Searched) or not queries:
            yield from offer.rate(self, queries) if isinstance(offer, Searched) else ()
            return
        vectors = self.vectors(queries)
        for rows in row_blocks((len(queries), len(offer.candidates)), PAIR_BLOCK):
            logits = self._logits(vectors[rows], offer.vectors)
            yield from rate(logits, offer.candidates, offer.candidate_ids, self.calibrator)

    def _logits(self, queries: Vectors, candidates: Vectors, values: NDArray[np.float32] | None = None) -> Logits:
        values = np.empty((len(queries), len(candidates)), np.float32) if values is None else values
        for tile in self.tiles(queries, candidates):
            values[tile.rows, tile.columns] = tile.logits
        if self.reranker is not None and queries.texts is not None and candidates.texts is not None:
            self.reranker.look(values, queries.texts, candidates.texts)
        return Logits(values, self.none_logits(queries), novelty_of(self.novelty, queries))

    def none_logits(self, queries: Vectors) -> NDArray[np.float32] | None:
        """(n,) logits of *none of these*; None for a model trained without it."""
        if self.none_vector is None:
            return None
        none = Vectors(self.loss.prepare(self.none_vector.detach()[None]))
        parts = [tile.logits[:, 0] for tile in self.tiles(queries, none)]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    # -- files -----------------------------------------------------------------------------------

    def note(self, evaluation: Evaluation) -> None:
        """Keep the metrics that were measured on this model, for its card; replacing earlier ones of the same split."""
        self.facts["measured"] = noted(self.facts.get("measured", ()), evaluation, self.calibrator)

    def card(self, name: str) -> str:
        """Return the model card, see `sigmax.model.card.model_card`: Markdown for README.md, here and on the hub."""
        return model_card(
            name,
            objective=self.loss.objective,
            candidates=self.candidates,
            pictures=self.pictures,
            calibrator=self.calibrator,
            facts=self.facts,
        )

    def save(self, folder: str | Path) -> None:
        """Write the model: encoders, sigmax.json, candidates, and its card as README.md; see `write_folder`.

        Raises:
            DataError: something else is there.
            OSError: it cannot be written; nothing is left behind.
        """
        write_folder(Path(folder), self._parts(), card=self.card(Path(folder).resolve().name))

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Publish the model, its card included, on the Hugging Face hub; `sigmax.load(repo_id)` reads it there.

        Args:
            repo_id: user/name; made if it is not there. What an earlier push left is replaced.
            private: whether a repository that is made is.
            token: one that may write; None for that of `hf auth login` or the environment variable HF_TOKEN.

        Returns:
            The address of the repository.

        Raises:
            DataError: the hub cannot be reached, or refuses.
        """
        parts, card = self._parts(), self.card(repo_id)
        return publish(lambda folder: write_folder(folder, parts, card=card), repo_id, PARTS, private, token)

    def as_sentence_transformer(self) -> SentenceTransformer:
        """Return the encoders as one SentenceTransformer, sharing their parameters.

        Its `encode_query` and `encode_document` give what `encode` gives for queries and candidates, and its
        `similarity` the logits but for scale and bias. Two encoders become two routes of a Router.
        """
        from sigmax.model.interchange import sentence_transformer

        return sentence_transformer(
            self.query_encoder, self.candidate_encoder, similarity=self.loss.similarity, device=self.device
        )

    def _parts(self) -> Parts:
        vectors = self.candidate_vectors(self.candidates) if len(self.candidates) > FEW else None
        kept = {name: getattr(self, name) for name in Parts.__annotations__}
        return cast(Parts, kept | {"candidate_vectors": vectors})

    def _encoder(self, side: str) -> nn.Module:
        if side == "candidate" and self.candidate_encoder is not None:
            return self.candidate_encoder
        return self.query_encoder


def load(source: str | Path, *, revision: str | None = None) -> DualEncoder:
    """Read a model that `DualEncoder.save` wrote, here or on the Hugging Face hub.

    Nothing of it is executed: weights are safetensors, the rest is JSON.

    Args:
        source: a folder; or, as a text that is no folder here, a model on the hub such as "user/name".
        revision: of a model on the hub, a branch, tag or commit; None for the newest.

    Raises:
        DataError: not a model folder, or one of a newer format; a hub that has no such model or cannot be reached.
        ValueError: a revision of a folder here.
    """
    return DualEncoder(**read_folder(find_folder(source, revision))).eval()
