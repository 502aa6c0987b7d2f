"""Aggregates of the records of a window: counts, sums, means and others.

Each gets values with ``by``, a function of the record's value. None is skipped: it counts as no
value. Sums and means of floats depend on the order of the records in their last digits.
"""

from streamkit.aggregates.base import Aggregator
from streamkit.aggregates.choices import First, Last, Max, Min, TopN
from streamkit.aggregates.collections import CollectList, CountDistinct, Fold
from streamkit.aggregates.numbers import Count, Mean, Quantile, Std, Sum

__all__ = [
    "Aggregator",
    "CollectList",
    "Count",
    "CountDistinct",
    "First",
    "Fold",
    "Last",
    "Max",
    "Mean",
    "Min",
    "Quantile",
    "Std",
    "Sum",
    "TopN",
]
