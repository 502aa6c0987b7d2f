"""Create the two data files of this example. They are always the same.

    python make_data.py [FOLDER]

``orders.jsonl.gz`` contains 3,000 orders, ``customers.csv`` the 500 customers that ``service.py``
knows. They are written to the folder of this file, or to FOLDER.
"""

import csv
import gzip
import json
import random
import sys
from pathlib import Path

ORDERS = 3_000
CUSTOMERS = 500
FIRST_NAMES = ("Ada", "Bram", "Chloe", "Dario", "Elif", "Femi", "Greta", "Hugo", "Ines", "Jan")
LAST_NAMES = (
    "Adler",
    "Bakker",
    "Costa",
    "Dubois",
    "Engel",
    "Falk",
    "Garcia",
    "Hoek",
    "Ito",
    "Jung",
)
COUNTRIES = ("DE", "ES", "FR", "NL", "SE")


def main(folder: Path) -> None:
    write_customers(folder / "customers.csv")
    write_orders(folder / "orders.jsonl.gz")
    print(f"wrote {CUSTOMERS} customers and {ORDERS:,} orders to {folder}")


def write_customers(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("id", "name", "country"))
        for number in range(CUSTOMERS):
            name = f"{FIRST_NAMES[number % 10]} {LAST_NAMES[number // 10 % 10]}"
            rows.writerow((f"C{number:03}", name, COUNTRIES[number % 7 % 5]))


def write_orders(path: Path) -> None:
    choice = random.Random(20_130_108)
    # Without a name and a time in the header, the same lines give the same file.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as lines:
        for number in range(ORDERS):
            # At a time, 200 customers are active: the later an order, the higher their numbers.
            customer = number // 10 + int(choice.random() * 200)
            cents = 500 + int(choice.random() * 20_000)
            order = {"order": number + 1, "customer": f"C{customer:03}", "cents": cents}
            lines.write(json.dumps(order, separators=(",", ":")).encode() + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
