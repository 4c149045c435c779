"""A table with columns of all types, some of which say nothing."""

import random


def people(rows=100):
    """Its lines: a header, and rows whose price and band follow from the rest."""
    draw, lines = random.Random(0), ["id,age (years),city,joined,member,note,same,price,band"]
    for row in range(1, rows + 1):
        age, city = draw.randint(20, 70), draw.choice(["Basel", "Bern", "Genf"])
        day = f"20{draw.randint(10, 20)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
        cells = [row, age if row % 9 else "NA", city if row % 7 else "", day if row % 11 else "-"]
        price = 3.5 * age + 20 * (city == "Basel")
        cells += [draw.choice(["true", "False"]), f"note {row}", 1, price, "high" if price > 150 else "low"]
        lines.append(",".join(map(str, cells)))
    return lines
