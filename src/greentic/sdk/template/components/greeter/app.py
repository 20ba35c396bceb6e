"""The component of this pack. `Node` is the exported interface; operations are the functions below."""

from greentic_component import Failure, Node, operation  # noqa: F401


@operation("greet")
def greet(payload, call):
    name = str(payload.get("name", "")).strip()
    if not name:
        raise Failure("no_name", "tell me your name")
    return {"text": f"Hello, {name}! You are in {call.tenant}."}
