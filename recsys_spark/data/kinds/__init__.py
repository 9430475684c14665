"""The kinds of delivered tables, by name."""

from recsys_spark.data.kinds.audiences import AUDIENCES
from recsys_spark.data.kinds.interactions import INTERACTIONS
from recsys_spark.data.kinds.items import ITEMS
from recsys_spark.data.kinds.kind import Kind
from recsys_spark.data.kinds.outcomes import OUTCOMES
from recsys_spark.data.kinds.users import USERS

KINDS: dict[str, Kind] = {kind.name: kind for kind in (INTERACTIONS, ITEMS, USERS, AUDIENCES, OUTCOMES)}
