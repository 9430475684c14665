"""item2vec (Barkan and Koenigstein 2016): items as words, baskets as sentences."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_spark.evaluation.baselines.known import Known, dense_rows
from recsys_spark.evaluation.baselines.scored import Scorer
from recsys_spark.models.als.linear import unit

SIZE = 48


def item2vec(known: Known, vectors: pa.Table) -> Scorer:
    """Cosine of the item with the sum of the user's items' unit vectors, each weighed by taste."""
    at_one = unit(dense_rows(vectors, id_column="item_id", ids=known.item_ids))
    unknown = np.flatnonzero(~at_one.any(axis=1))
    taste = known.taste

    def score(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        scores = unit(taste[rows] @ at_one) @ at_one.T
        scores[:, unknown] = -np.inf
        return scores

    return score
