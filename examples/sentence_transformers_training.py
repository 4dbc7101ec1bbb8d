"""Train a sentence-transformers model on emoji search, where a keyword has several right emoji.

    python examples/sentence_transformers_training.py --model sentence-transformers/all-MiniLM-L6-v2

The trainer is sentence-transformers' own. Sigmax brings the loss, which knows that one keyword's emoji are right for
another too; the sampler, which puts several emoji of a keyword into one batch; and the evaluator, which asks beside the
ranking how far a presence can be trusted and whether "none of these" is recognised: in this set the food is hidden, so
some keywords have no right answer.
"""

import argparse

from datasets import Dataset

import sigmax
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sigmax.sentence_transformers import MatchEvaluator, MultiPositiveBatchSampler, SoftmaxLoss, known_pairs


def pairs_of(data: sigmax.MatchDataset, split: str) -> Dataset:
    """One row for each right pair: the keyword and one of its emoji."""
    rows = [(i, j) for i in data.split(split) for j in data.graph[[i]].indices]
    return Dataset.from_dict(
        {"anchor": [data.queries[i] for i, _ in rows], "positive": [data.candidates[j] for _, j in rows]}
    )


def asked(data: sigmax.MatchDataset, split: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """A split's queries, and the right candidates of each, by id."""
    rows = data.split(split)
    return (
        {data.query_ids[i]: data.queries[i] for i in rows},
        {data.query_ids[i]: [data.candidate_ids[j] for j in data.graph[[i]].indices] for i in rows},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="a name, or a folder")
    parser.add_argument("--output", default="runs/emoji-sentence-transformers")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="static embeddings want about 1e-2")
    given = parser.parse_args()

    data = sigmax.load_data("emoji-hidden")
    train = pairs_of(data, "train")
    model = SentenceTransformer(given.model)
    loss = SoftmaxLoss(model, positives=known_pairs(train))
    queries, relevant = asked(data, "test")
    candidates = dict(zip(data.candidate_ids, data.candidates, strict=True))
    evaluator = MatchEvaluator(queries, candidates, relevant, dev=asked(data, "dev"), loss=loss, name="emoji")
    before = evaluator(model)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=given.output,
        num_train_epochs=given.epochs,
        per_device_train_batch_size=128,
        learning_rate=given.learning_rate,
        warmup_steps=0.1,
        batch_sampler=MultiPositiveBatchSampler,
        save_strategy="no",
        report_to="none",
    )
    SentenceTransformerTrainer(model, arguments, train_dataset=train, loss=loss).train()
    after = evaluator(model)
    model.save_pretrained(given.output)
    for metric in ("map", "log_loss", "calibration_error", "none_auroc_any"):
        print(f"{metric:18} before {before[f'emoji_{metric}']:.4f}  after {after[f'emoji_{metric}']:.4f}")


if __name__ == "__main__":
    main()
