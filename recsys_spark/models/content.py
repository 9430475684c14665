"""TF-IDF vectors of the items' words, by Spark ML, and beside them what else is known of the items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.ml import Transformer
from pyspark.ml.feature import IDF, CountVectorizerModel, NGram, Normalizer, RegexTokenizer, StopWordsRemover
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Content
from recsys_spark.errors import NothingToLearnError
from recsys_spark.models.content_features import feature_weights
from recsys_spark.runtime.checkpoints import checkpointed
from recsys_spark.runtime.rows import frame_of
from recsys_spark.runtime.workers import warm_worker

# Marks (vowel signs of Hindi, accents that have no composed letter) belong to the letter before them.
WORD = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*"


@dataclass(frozen=True)
class ContentModel:
    """vectors: (item_id, terms int[], weights float[]), L2 norm 1; terms: (term_index, term, idf).

    The terms of features follow those of words, with an idf of 1.
    """

    vectors: DataFrame
    terms: DataFrame


def item_text(fields: list[str]) -> Column:
    """All configured text of an item in one lower-case string."""
    parts = [F.array_join("tags", " ") if name == "tags" else F.col(name) for name in fields]
    return F.lower(F.concat_ws(" ", *parts))


def fit_content(
    items: DataFrame, settings: Content, *, numbers: DataFrame | None = None, needs_words: bool = True
) -> ContentModel:
    """TF-IDF of words and n-grams: tf = count in the item, idf = log((n + 1) / (df + 1)).

    `items` holds one row per item with title, category, brand, tags. Letters and digits of any script make
    words, with the marks that follow them, composed where one character stands for both (Unicode's NFC);
    stop words are dropped before n-grams are made. Items without a known word get an empty vector.
    Configured features are further dimensions (`content_features`); `numbers` (item_id, names, values) are
    the numbers known of the items.
    Where no term is shared by `min_items` items, NothingToLearnError is raised; without `needs_words` all
    items get an empty vector instead, but for their features.
    """
    texts = items.select("item_id", item_text(list(settings.fields)).alias("text"))
    grams = _with_grams(checkpointed(texts.mapInArrow(_composed, texts.schema)), settings)
    vocabulary = _vocabulary(grams, settings)
    if needs_words and not vocabulary:
        raise NothingToLearnError(
            f"{no_words(settings)}. "
            "Expected item texts; map title, category, brand or tags in the items' source."
        )
    terms, vectors = _weighted(grams, vocabulary) if vocabulary else ([], _wordless(items))
    if settings.features:
        none = frame_of(items.sparkSession, [], "item_id string, names array<string>, values array<float>")
        features = checkpointed(feature_weights(items, none if numbers is None else numbers, settings))
        names = _names(features)
        index = {name: place for place, name in enumerate(names, start=len(vocabulary))}
        vectors = _with_features(vectors, features, index)
        terms += [(at, name, 1.0) for name, at in index.items()]
    return ContentModel(
        vectors=vectors,
        terms=frame_of(items.sparkSession, terms, "term_index int, term string, idf double"),
    )


def no_words(settings: Content) -> str:
    """The beginning of a sentence: that there is nothing to make words' vectors of."""
    return f"no word is shared by {settings.min_items} items in {', '.join(settings.fields)}"


def _wordless(items: DataFrame) -> DataFrame:
    none = F.array()
    return items.select(
        "item_id", none.cast("array<int>").alias("terms"), none.cast("array<float>").alias("weights")
    )


def _weighted(grams: DataFrame, vocabulary: list[str]) -> tuple[list[tuple[int, str, float]], DataFrame]:
    """(term_index, term, idf) of the vocabulary, and the items' vectors."""
    counter = CountVectorizerModel.from_vocabulary(vocabulary, inputCol="grams", outputCol="counts")
    counts = counter.transform(grams)
    idf = IDF(inputCol="counts", outputCol="tfidf").fit(counts)
    weighted = Normalizer(inputCol="tfidf", outputCol="vector", p=2.0).transform(idf.transform(counts))
    terms = [
        (index, term, float(weight))
        for index, (term, weight) in enumerate(zip(vocabulary, idf.idf.toArray(), strict=True))
    ]
    return terms, _sparse(weighted)


def _names(features: DataFrame) -> list[str]:
    rows = features.select(F.explode("features").alias("name", "weight")).select("name").distinct()
    return sorted(row["name"] for row in rows.collect())


def _with_features(words: DataFrame, features: DataFrame, index: Mapping[str, int]) -> DataFrame:
    """The vectors with the features' dimensions behind those of words; of length 1, without words at most."""
    known = frame_of(words.sparkSession, list(index.items()), "name string, term_index int")
    own = (
        features.select("item_id", F.explode("features").alias("name", "weight"))
        .join(F.broadcast(known), on="name", how="inner")
        .groupBy("item_id")
        .agg(F.sort_array(F.collect_list(F.struct("term_index", "weight"))).alias("own"))
    )
    both = words.join(own, on="item_id", how="left")
    terms = F.concat("terms", F.coalesce("own.term_index", F.array().cast("array<int>")))
    weights = F.concat("weights", F.coalesce("own.weight", F.array().cast("array<float>")))
    squares = F.aggregate("whole", F.lit(0.0), lambda total, weight: total + weight * weight)
    length = F.greatest(F.sqrt(squares), F.lit(1.0))
    scaled = F.transform("whole", lambda weight: (weight / length).cast("float"))
    return both.select("item_id", terms.alias("terms"), weights.alias("whole")).select(
        "item_id", "terms", scaled.alias("weights")
    )


def _composed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A letter and its accent as one character, whichever of the two ways the source writes them."""
    warm_worker()
    for batch in batches:
        texts = pc.utf8_normalize(batch.column("text"), form="NFC")
        yield pa.RecordBatch.from_arrays([batch.column("item_id"), texts], names=["item_id", "text"])


def _with_grams(texts: DataFrame, settings: Content) -> DataFrame:
    words = RegexTokenizer(inputCol="text", outputCol="words", pattern=WORD, gaps=False, toLowercase=True)
    dropped = [
        word for language in settings.stop_words for word in StopWordsRemover.loadDefaultStopWords(language)
    ]
    dropped += settings.more_stop_words
    stages: list[Transformer] = [words]
    if dropped:
        stages.append(StopWordsRemover(inputCol="words", outputCol="kept", stopWords=dropped))
    columns = ["kept" if dropped else "words"]
    for n in range(2, settings.ngram + 1):
        stages.append(NGram(n=n, inputCol=columns[0], outputCol=f"grams_{n}"))
        columns.append(f"grams_{n}")
    rows = texts
    for stage in stages:
        rows = stage.transform(rows)
    return rows.select("item_id", F.concat(*columns).alias("grams"))


def _vocabulary(grams: DataFrame, settings: Content) -> list[str]:
    """The terms of most items, sorted. CountVectorizer's own fit leaves ties to partitioning."""
    frequent = (
        grams.select(F.explode(F.array_distinct("grams")).alias("term"))
        .groupBy("term")
        .agg(F.count(F.lit(1)).alias("items"))
        .where(F.col("items") >= settings.min_items)
        .orderBy(F.desc("items"), "term")
        .limit(settings.max_terms)
    )
    return sorted(row["term"] for row in frequent.collect())


def _sparse(rows: DataFrame) -> DataFrame:
    """Terms in ascending order with float32 weights, out of the vector's own storage.

    Spark's vector_to_array would write out every zero: twenty thousand a row.
    """

    def unpack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        warm_worker()
        for batch in batches:
            vectors = batch.column("vector")
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column("item_id"),
                    vectors.field("indices").cast(pa.list_(pa.int32())),
                    vectors.field("values").cast(pa.list_(pa.float32())),
                ],
                names=["item_id", "terms", "weights"],
            )

    return rows.select("item_id", "vector").mapInArrow(
        unpack, "item_id string, terms array<int>, weights array<float>"
    )
