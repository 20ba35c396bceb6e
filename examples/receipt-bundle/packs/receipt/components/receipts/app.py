"""Adds up an order: lines such as `2 tea 1.80` become a receipt with a total."""

from decimal import Decimal, InvalidOperation

from greentic_component import Failure, Node, operation  # noqa: F401


@operation("add-up")
def add_up(payload, call):
    lines = [line.strip() for line in str(payload.get("order", "")).split(",") if line.strip()]
    if not lines:
        raise Failure("empty_order", "say what you want, such as: 2 tea 1.80, 1 cake 3.50")
    items, total = [], Decimal(0)
    for line in lines:
        try:
            count, *name, price = line.split()
            sum_of_line = int(count) * Decimal(price)
        except (ValueError, InvalidOperation):
            raise Failure("unreadable_line", f"`{line}` is not: COUNT NAME PRICE") from None
        items.append({"item": " ".join(name), "count": int(count), "sum": f"{sum_of_line:.2f}"})
        total += sum_of_line
    return {"items": items, "total": f"{total:.2f}", "tenant": call.tenant}
