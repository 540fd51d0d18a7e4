"""An MCP server on standard input and output: ``enable`` adds the tool ``adder``, ``disable`` removes it."""

import json
import sys

INTEGERS = {"a": {"type": "integer"}, "b": {"type": "integer"}}
NOTHING: dict[str, object] = {"type": "object", "properties": {}}
SWITCHES = [
    {"name": "enable", "description": "Switch the adder on.", "inputSchema": NOTHING},
    {"name": "disable", "description": "Switch the adder off.", "inputSchema": NOTHING},
]
ADDER = {
    "name": "adder",
    "description": "Add two integers.",
    "inputSchema": {"type": "object", "properties": INTEGERS, "required": ["a", "b"]},
}


def send(message: dict[str, object]) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answer requests until the input ends."""
    is_on = False
    for line in sys.stdin:
        message = json.loads(line)
        number, asked = message.get("id"), message.get("params", {})
        if number is None:
            continue
        match message["method"]:
            case "initialize":
                features, server = {"tools": {"listChanged": True}}, {"name": "kit", "version": "1"}
                version = asked["protocolVersion"]
                result = {"protocolVersion": version, "capabilities": features, "serverInfo": server}
                send({"id": number, "result": result})
            case "tools/list":
                send({"id": number, "result": {"tools": [*SWITCHES, *[ADDER] * is_on]}})
            case "tools/call":
                if asked["name"] == "adder":
                    said = f"sum {asked['arguments']['a'] + asked['arguments']['b']}"
                else:
                    was_on, is_on = is_on, asked["name"] == "enable"
                    said = f"It is {'on' if is_on else 'off'}."
                    if was_on != is_on:
                        send({"method": "notifications/tools/list_changed"})
                send({"id": number, "result": {"content": [{"type": "text", "text": said}]}})
            case _:
                send({"id": number, "error": {"code": -32601, "message": "no such method"}})


if __name__ == "__main__":
    main()
