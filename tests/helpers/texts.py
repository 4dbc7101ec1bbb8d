"""A table of texts, an encoder of static vectors for them, and what the encoder makes of columns."""

import torch
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

from sentence_transformers import SentenceTransformer

WORDS = [f"w{i}" for i in range(40)]
#: Anchors, positives, negatives: an anchor twice, texts in several columns.
TABLE = (
    ["w0 w1", "w0 w1", "w2", "w3 w4", "w5"],
    ["w6", "w7 w8", "w6", "w9", "w10 w11"],
    ["w12", "w9", "w13", "w5", "w2 w14"],
)


def tokenizer():
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def static(width=12, seed=0):
    torch.manual_seed(seed)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer(), embedding_dim=width)], device="cpu")


def features_of(model, columns):
    return [model.preprocess(list(column)) for column in columns]
