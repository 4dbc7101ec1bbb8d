"""A training loop of your own: two encoders, a Sigmax loss, and PyTorch for everything else.

Keywords are matched to the names of their emoji, several right ones each. A batch is a few keywords and some of their
right answers; `Positives` says which pairs of the batch are right, so that no right answer is trained as wrong.

    python examples/plain_pytorch.py
"""

import torch
from torch import Tensor, nn

import sigmax

BUCKETS = 32_749  # a prime: the last letters of a trigram alone would decide a remainder by a power of 2


def pieces(text: str) -> Tensor:
    """Letter trigrams of a text, as numbers below BUCKETS that are the same in every run."""
    padded = f"  {text.lower()} "
    trigrams = [padded[i : i + 3].encode() for i in range(len(padded) - 2)]
    return torch.tensor([int.from_bytes(trigram, "big") % BUCKETS for trigram in trigrams])


class Encoder(nn.Module):
    """The mean of a text's trigram vectors."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(BUCKETS, width)

    def forward(self, texts: list[str]) -> Tensor:
        """Texts -> (b, width)."""
        parts = [pieces(text) for text in texts]
        starts = torch.tensor([0, *(len(part) for part in parts[:-1])]).cumsum(0)
        return self.table(torch.cat(parts), starts)


def train(data: sigmax.MatchDataset, loss: nn.Module, *, epochs: int = 8, batch_size: int = 128) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder()
    optimizer = torch.optim.Adam(
        [{"params": encoder.parameters(), "lr": 0.01}, {"params": loss.parameters(), "lr": 0.001}]
    )
    queries = torch.from_numpy(data.split("train"))
    for epoch in range(epochs):
        total = 0.0
        batches = queries[torch.randperm(len(queries))].split(batch_size)
        for batch in batches:
            right = torch.from_numpy(data.graph[batch.numpy()].toarray())  # (b, all candidates)
            offered = right.any(0).nonzero()[:, 0]
            positives = sigmax.Positives.from_dense(right[:, offered])  # every known right pair of the batch
            value = loss(
                encoder([data.queries[i] for i in batch]), encoder([data.candidates[j] for j in offered]), positives
            )
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += value.item()
        print(f"epoch {epoch + 1}: loss {total / len(batches):.3f}")
    return encoder


@torch.no_grad()
def precision_at_1(data: sigmax.MatchDataset, encoder: Encoder, loss: nn.Module, split: str = "test") -> float:
    """Share of a split's keywords whose best candidate of all is right."""
    asked = data.split(split)
    logits = loss.logits(encoder([data.queries[i] for i in asked]), encoder(list(data.candidates)))
    right = torch.from_numpy(data.graph[asked].toarray())
    return right.gather(1, logits.argmax(1, keepdim=True)).float().mean().item()


def main() -> None:
    data = sigmax.load_data("emoji")
    untrained = precision_at_1(data, Encoder(), sigmax.SoftmaxLoss())  # names that share letters with the keyword
    print(f"precision@1 on test, untrained: {untrained:.3f}\n")
    for loss in (sigmax.SoftmaxLoss(positives="decoupled"), sigmax.SigmoidLoss()):
        print(loss)
        print(f"precision@1 on test, trained: {precision_at_1(data, train(data, loss), loss):.3f}\n")


if __name__ == "__main__":
    main()
