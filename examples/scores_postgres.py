"""PostgreSQL: presence computed in SQL, beside the distance that pgvector gives.

For one column of scores calibrated with the curve `platt`:

    presence = σ(a · s + b · log odds of the share of s + c),   s = scale · distance + bias

`presence_sql` writes that as a query around yours, whose columns are query, candidate and score; the share is among the
rows of a query. In use, score is what pgvector's `<=>` or `<->` gives:

    SELECT 'q1' AS query, id AS candidate, embedding <=> $1 AS score FROM items ORDER BY embedding <=> $1 LIMIT 50
"""

import sigmax
from sigmax.calibration import Platt


def presence_sql(calibrated: sigmax.ScoreModel, rows: str, rule: str = "best-f1") -> str:
    """Write a query that adds presence and accepted to the rows of another."""
    curve = calibrated.calibrator.calibration
    (column,) = calibrated.combination.columns
    if not isinstance(curve, Platt) or column.odds or calibrated.combination.logit_slopes != (1.0,):
        raise ValueError("Expected one column of scores, calibrated with method='platt'.")
    sign = "-" if column.lower else ""
    decision = calibrated.decide(rule)
    return f"""
WITH rows AS ({rows}),
logits AS (SELECT *, {column.scale!r} * ({sign}score) + ({column.bias!r}) AS s FROM rows),
highest AS (SELECT *, max(s) OVER (PARTITION BY query) AS top FROM logits),
rivals AS (SELECT *, sum(exp(s - top)) OVER (PARTITION BY query) - exp(s - top) AS others FROM highest),
odds AS (
    SELECT *, CASE WHEN others < 1e-13 THEN 30 ELSE greatest(-30, least(30, s - top - ln(others))) END AS r FROM rivals
),
rated AS (
    SELECT *, 1 / (1 + exp(-({curve.scale!r} * s + {curve.share!r} * r + ({curve.bias!r})))) AS presence FROM odds
)
SELECT query, candidate, score, presence, presence >= {decision.threshold!r} AS accepted FROM rated
ORDER BY query, presence DESC"""
