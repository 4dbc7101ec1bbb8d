"""The model card: what a model matches, how to use it, what it was trained on and what was measured. Nothing else."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.competition import competition_words
from sigmax.calibration.familiar import FALSE_ALARMS, UNLIKE, Familiar
from sigmax.evaluation import Evaluation
from sigmax.families import Objective
from sigmax.metrics.intervals import Estimate, interval, number
from sigmax.metrics.registry import METRICS

__all__ = ["model_card", "noted", "public_name"]

#: Candidates that the card names.
_NAMED = 8


def model_card(
    name: str,
    *,
    objective: Objective,
    candidates: Sequence[str],
    pictures: bool,
    calibrator: Calibrator | None,
    facts: Mapping[str, Any],
) -> str:
    """Markdown with the hub's metadata on top.

    Args:
        name: what `sigmax.load` takes.
        objective: what trained it.
        candidates: what it offers.
        pictures: whether queries are pictures.
        calibrator: None for a model without presences.
        facts: of a DualEncoder. What is not in it is left out: of `license` the field, of `measured` the table. A
            measurement from before the model was calibrated anew is left out too.
    """
    from huggingface_hub import ModelCardData

    metadata = ModelCardData(
        library_name="sigmax",
        license=facts.get("license"),
        tags=["sigmax", "sentence-transformers", objective.family, "image" if pictures else "text"],
    )
    measured = [
        one
        for one in facts.get("measured", ())
        if one["calibration"] == (None if calibrator is None else dict(calibrator.about))
    ]
    blocks = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {_plain(name)}",
        _what(objective, candidates, pictures, calibrator),
        _use(name, pictures, calibrator),
        "## Measured",
        *(_measured(one) for one in measured),
        *([] if measured else ["Nothing was measured on this model as it is."]),
        *(["## Data", _data(facts)] if "data" in facts else []),
        *(["## Training", _table(("setting", "value"), _settings(facts["settings"]))] if "settings" in facts else []),
        _versions(),
    ]
    return "\n\n".join(blocks) + "\n"


def noted(
    measured: Iterable[Mapping[str, Any]], evaluation: Evaluation, calibrator: Calibrator | None
) -> list[Mapping[str, Any]]:
    """Add an evaluation to those that a model's facts keep, in the place of an earlier one of the same split."""
    about = evaluation.as_dict()
    kept = {name: about[name] for name in ("data", "split", "queries", "unanswered", "metrics")}
    kept["calibration"] = None if calibrator is None else dict(calibrator.about)
    others = [one for one in measured if (one["data"], one["split"]) != (evaluation.data, evaluation.split)]
    return [*others, kept]


def _what(objective: Objective, candidates: Sequence[str], pictures: bool, calibrator: Calibrator | None) -> str:
    named = ", ".join(f"“{_plain(text)}”" for text in candidates[:_NAMED])
    offered = f"{len(candidates):,} candidates: {named}" if candidates else "no candidates yet"
    more = f" and {len(candidates) - _NAMED:,} more" if len(candidates) > _NAMED else ""
    said = (
        f"Matches {'pictures' if pictures else 'texts'} to {offered}{more}. Its loss is {objective.name}: "
        f"{objective.summary}."
    )
    if calibrator is None:
        return f"{said} It was not calibrated: it gives logits and shares, and no presences."
    about = calibrator.about
    fitted = (
        f", fitted ({about['method']}) on the {about['split']} split of {_plain(about['data'])}, "
        f"{about['queries']:,} queries"
        if {"method", "split", "data", "queries"} <= about.keys()
        else ""
    )
    return (
        f"{said} For each candidate it gives a *presence*, the probability that it is right{fitted}; it accepts "
        f"those of at least {number(calibrator.default_threshold)}, and answers *none of these* where there is none "
        f"and probably no candidate is right. In the presence {competition_words(calibrator.competition)}."
        f"{_flag(calibrator.familiar)}"
    )


def _flag(familiar: Familiar | None) -> str:
    """Say what *unlike anything in training* is; nothing of a model that keeps nothing of its training queries."""
    if familiar is None or familiar.dev.shape[1] < 2 or (len(familiar.dev) + 1) * FALSE_ALARMS < 1:
        return ""
    return (
        f" A query is flagged as *{UNLIKE}* where it is less familiar, by its presences and by how near the training "
        f"queries are, than nearly all of {len(familiar.dev):,} dev queries: of queries drawn as these were, that "
        f"happens to at most {FALSE_ALARMS:.0%}, whatever their distribution. What was measured is `false_alarms`."
    )


def _use(name: str, pictures: bool, calibrator: Calibrator | None) -> str:
    query = "picture.jpg" if pictures else "your text"
    presence = "match.logit, match.share" if calibrator is None else "match.presence"
    return f"""## Use

```python
import sigmax

model = sigmax.load({json.dumps(name, ensure_ascii=False)})
for match in model.match({json.dumps(query)}, top_k=3):
    print(match.candidate, {presence})
```

```
sigmax match {shlex.quote(name)} {shlex.quote(query)}
```

`model.as_sentence_transformer()` is a `SentenceTransformer`: `encode_query`, `encode_document`."""


def _measured(one: Mapping[str, Any]) -> str:
    rows = []
    for name, saved in one["metrics" if "metrics" in one else "figures"].items():  # their name in older models
        estimate = Estimate(**{key: math.nan if value is None else value for key, value in saved.items()})
        rows.append(
            (name, number(estimate.value), interval(estimate), METRICS[name].meaning if name in METRICS else "")
        )
    looked_at = (
        " Training and calibration look at this split: elsewhere metrics tend to be worse, those of presence most."
        if one["split"] == "dev"
        else ""
    )
    return (
        f"On the {one['split']} split of {_plain(one['data'])}: {one['queries']:,} queries, {one['unanswered']:,} of "
        "them with no right answer, over all candidates of the data; 95% intervals by the bootstrap over queries."
        f"{looked_at}\n\n{_table(('metric', 'value', '95% interval', 'what it is'), rows)}"
    )


def _data(facts: Mapping[str, Any]) -> str:
    # Older models hold the name, and the sizes beside it.
    data = facts["data"] if isinstance(facts["data"], Mapping) else {**facts, "name": facts["data"]}
    offered = f"{data['candidates']:,} {'labels' if data['labels'] else 'candidates'}"
    text = f"{_plain(data['name'])}: {data['queries']:,} queries, {offered}."
    if "splits" not in data:
        return text
    rows = [(split, f"{queries:,}", f"{data['unanswered'][split]:,}") for split, queries in data["splits"].items()]
    return f"{text}\n\n{_table(('split', 'queries', 'of them with no right answer'), rows)}"


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Those that are set."""
    shown = {key: value for key, value in settings.items() if value is not None}
    if "encoder" in shown:  # of a model saved before this was done in training
        shown["encoder"] = public_name(shown["encoder"])
    return [(key, _plain(str(value))) for key, value in shown.items()]


def public_name(encoder: str) -> str:
    """Return an encoder's name; a local path is shortened, so that it is not published."""
    return os.path.basename(os.path.abspath(encoder)) if os.path.isdir(encoder) else encoder


def _versions() -> str:
    names = ("sigmax", "torch", "sentence-transformers", "transformers", "numpy")
    return "Saved with " + ", ".join(f"{name} {version(name)}" for name in names) + "."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", " ".join(text.split()))
