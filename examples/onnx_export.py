"""A model's query encoder as ONNX, through sentence-transformers' own backend, with the vectors that PyTorch gives.

    sigmax train faq.csv --encoder all-MiniLM-L6-v2 -o runs/faq
    python -m venv onnx                          # an environment of its own: optimum-onnx 0.1.0 wants transformers 4,
    onnx/bin/pip install torch 'optimum-onnx[onnxruntime]' httpx          # sentence-transformers 6.2.0 declares 5
    onnx/bin/pip install --no-deps sentence-transformers==6.2.0           # and works with 4.57
    onnx/bin/python examples/onnx_export.py runs/faq "how do I get my money back?"

Sigmax is not needed there. The scale and the bias that make logits of cosines are in sigmax.json.
"""

import json
import sys
from pathlib import Path

import numpy as np

from sentence_transformers import SentenceTransformer


def main() -> None:
    folder, texts = Path(sys.argv[1]), sys.argv[2:]
    about = json.loads((folder / "sigmax.json").read_text(encoding="utf-8"))
    encoder = str(folder / "query_encoder")
    plain = SentenceTransformer(encoder, device="cpu")
    exported = SentenceTransformer(
        encoder, device="cpu", backend="onnx", model_kwargs={"provider": "CPUExecutionProvider"}
    )
    exported.save_pretrained(str(folder / "onnx"))
    candidates = [json.loads(line) for line in (folder / "candidates.jsonl").open(encoding="utf-8")]
    vectors = {one.backend: one.encode(texts, normalize_embeddings=True) for one in (plain, exported)}
    print(f"largest difference of the unit vectors: {np.abs(vectors['torch'] - vectors['onnx']).max():.1e}")
    if (folder / "candidate_encoder").exists():  # fixed labels, or a tower of its own: its vectors come from elsewhere
        return
    offered = exported.encode([row["text"] for row in candidates], normalize_embeddings=True)
    logits = about["logit_scale"] * vectors["onnx"] @ offered.T + (about["logit_bias"] or 0.0)
    for text, row in zip(texts, logits, strict=True):
        best = row.argsort()[::-1][:3]
        print(f"{text}: " + ", ".join(f"{candidates[j]['text']} {row[j]:.3f}" for j in best))


if __name__ == "__main__":
    main()
