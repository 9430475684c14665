"""The vocabulary: words that stand in tables, settings and figures, and mean one thing everywhere."""

from __future__ import annotations

# The stages of a night, in order: each a job, a module of recsys_spark.stages and an Airflow task.
STAGES = (
    "ingest",
    "clean",
    "preferences",
    "train_als",
    "train_content",
    "train_blend",
    "recommend",
    "evaluate",
    "publish",
    "deliver",
)

# What lists are made and judged for.
REPEATS_ALLOWED, NEW_ITEMS_ONLY = "repeats_allowed", "new_items_only"
TASKS = (REPEATS_ALLOWED, NEW_ITEMS_ONLY)

# What a score is mixed from. trial: who had an item for the first time lately.
ALS, CONTENT, HISTORY, POPULARITY, TRIAL = "als", "content", "history", "popularity", "trial"
COMPONENTS = (ALS, CONTENT, HISTORY, POPULARITY, TRIAL)
# The blend of all components, beside which each is judged.
HYBRID = "hybrid"
# What stands for popularity and trial where a user has nothing but a group: its popularity.
POPULARITY_GROUP = "popularity_group"
# The source of a slot that an item has which nobody has had yet.
COLD_ITEM = "cold_item"
# What says that one item goes with another.
CO_PURCHASE = "co_purchase"
SIMILAR_COMPONENTS = (ALS, CONTENT, CO_PURCHASE)

# The metric that sentences, leads and the first figure of a report are of.
HEADLINE = "ndcg@10"
# How far predicted ratings are off.
RMSE, MAE = "rmse", "mae"

# What groups items, and may be read as a whole beside its words.
CONTENT_GROUPS = ("category", "brand", "tags")
# What silver.users says of the groups that a user belongs to.
USER_GROUPS = ("country", "region", "segment", "age_band")
# What is known of an item as a number beside its source's own attributes.
PRICE, AGE_DAYS = "price", "age_days"

# All users: the audience of a campaign that names none, and the group of popularity without groups (which is
# no name of another: those are all column=value).
EVERYONE = "everyone"
