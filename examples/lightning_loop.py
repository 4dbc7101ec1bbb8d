"""The same two encoders in Lightning: the loss is a module like any other, its scale is trained along.

pip install lightning
python examples/lightning_loop.py
"""

import lightning
import torch
from plain_pytorch import Encoder, precision_at_1
from torch.utils.data import DataLoader

import sigmax
from sigmax.data import Batch, Batches


class Matcher(lightning.LightningModule):
    """Encoder and loss. A batch holds texts of both sides, and which of its pairs are right."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.loss = sigmax.SoftmaxLoss(positives="decoupled")

    def training_step(self, batch: tuple[list[str], list[str], sigmax.Positives], _: int) -> torch.Tensor:
        """Encode both sides and compute the loss."""
        queries, candidates, positives = batch
        return self.loss(self.encoder(queries), self.encoder(candidates), positives)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One rate for the encoder, a lower one for the scale."""
        return torch.optim.Adam(
            [{"params": self.encoder.parameters(), "lr": 0.01}, {"params": self.loss.parameters(), "lr": 0.001}]
        )


def main() -> None:
    lightning.seed_everything(0)
    data = sigmax.load_data("emoji")
    batches = Batches(data, epochs=8)  # an item is a whole batch; it knows all epochs
    model = Matcher()

    def texts(batch: Batch) -> tuple[list[str], list[str], sigmax.Positives]:
        queries = [data.queries[i] for i in batch.queries]
        return queries, [data.candidates[j] for j in batch.candidates], batch.positives

    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(model, DataLoader(batches, batch_size=None, collate_fn=texts))
    print(f"precision@1 on test: {precision_at_1(data, model.encoder, model.loss):.3f}")


if __name__ == "__main__":
    main()
