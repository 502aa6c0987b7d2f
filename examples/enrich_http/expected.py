"""Compute, without streamkit and without the service, what ``enrich.py`` must write.

``python expected.py`` prints the counts as JSON. ``outcome`` returns the records themselves.
"""

import csv
import gzip
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

FOLDER = Path(__file__).parent
ATTEMPTS = 4


@dataclass(frozen=True)
class Outcome:
    """What becomes of the orders. Every order is in exactly one of the two lists.

    After the service is healed and the dead letters are replayed, the topic contains both lists.
    """

    enriched: list[Row]
    enriched_by_replay: list[Row]
    requests: Counter[str]

    @property
    def counts(self) -> dict[str, Any]:
        dead = Counter(order["customer"] for order in self.enriched_by_replay)
        return {
            "orders": len(self.enriched) + len(self.enriched_by_replay),
            "enriched": len(self.enriched),
            "dead_letters": len(self.enriched_by_replay),
            "dead_letters_by_customer": dict(sorted(dead.items())),
            "requests": dict(sorted(self.requests.items())),
        }


def outcome(orders: list[Row], customers: dict[str, Row]) -> Outcome:
    """Return the outcome of a run before the service is healed, and of the replay after it."""
    enriched = [order for order in orders if not is_damaged(order["customer"])]
    dead = [order for order in orders if is_damaged(order["customer"])]
    return Outcome(
        [with_customer(order, customers) for order in enriched],
        [with_customer(order, customers) for order in dead],
        requests(enriched, dead),
    )


def requests(enriched: list[Row], dead: list[Row]) -> Counter[str]:
    """Return how many requests of the first run end in which way.

    Only the first request of a customer is unavailable or late, so no order of such a customer
    fails more than once.
    """
    numbers = [int(order["customer"][1:]) for order in enriched]
    counts = Counter(
        unavailable=sum(number % 10 == 3 for number in set(numbers)),
        late=sum(number % 100 == 7 for number in set(numbers)),
        slow=sum(number % 10 == 5 for number in numbers),
        failed=ATTEMPTS * len(dead),
    )
    counts["ok"] = len(enriched) - counts["slow"]
    counts["requests"] = counts.total()
    return counts


def is_damaged(customer: str) -> bool:
    return customer.startswith("C10")


def with_customer(order: Row, customers: dict[str, Row]) -> Row:
    customer = customers[order["customer"]]
    return {**order, "name": customer["name"], "country": customer["country"]}


def orders_and_customers(folder: Path = FOLDER) -> tuple[list[Row], dict[str, Row]]:
    """Read the data files."""
    with gzip.open(folder / "orders.jsonl.gz", "rt", encoding="utf-8") as lines:
        orders = list(map(json.loads, lines))
    with (folder / "customers.csv").open(encoding="utf-8", newline="") as rows:
        return orders, {row["id"]: row for row in csv.DictReader(rows)}


if __name__ == "__main__":
    json.dump(outcome(*orders_and_customers()).counts, sys.stdout, indent=2)
    sys.stdout.write("\n")
