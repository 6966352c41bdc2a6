r"""Publish the live score as hri_msgs/Expression, for robots that run ROS 2.

    python examples/ros2_bridge.py [ws://127.0.0.1:8765/] \
        --ros-args -r expression:=/humans/faces/anonymous/expression

Needs ROS 2 with hri_msgs (apt install ros-jazzy-hri-msgs) and `pip install websockets` in the same
Python. The mapping, `fill`, needs neither. Where a token is asked for, it is taken from the
environment variable TAMULAG_TOKEN.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

WORDS = {"positive": "happy", "neutral": "neutral", "negative": "sad"}
WIDEST = 6.0  # an interval as wide as the whole scale says nothing
PAUSE = 2.0
"""Seconds until the next attempt to connect."""
REMEDIES = {
    "rclpy": "source /opt/ros/jazzy/setup.bash, and use the Python of ROS",
    "hri_msgs": "apt install ros-jazzy-hri-msgs",
    "websockets": "pip install websockets",
}


def fill(expression: Any, score: dict[str, Any]) -> bool:
    """Fill an Expression from a message of type sentiment; return whether there is anything to say.

    The header is left to the caller. Arousal is not measured and stays 0.
    """
    if score["type"] != "sentiment" or score["valence"] is None:
        return False
    expression.expression = WORDS[score["label"]]
    expression.valence = float(score["valence"])
    expression.arousal = 0.0
    expression.confidence = confidence(score["interval"])
    return True


def confidence(interval: list[float] | None) -> float:
    """Return 1 for a 90 % interval without width, 0 for one as wide as the scale, or for none."""
    return 0.0 if interval is None else max(0.0, 1.0 - (interval[1] - interval[0]) / WIDEST)


def listen(address: str, pause: float = PAUSE) -> Iterator[dict[str, Any]]:
    """Yield every message for ever; connect again where the connection is lost.

    Args:
        address: Of the agent, ws:// or wss://.
        pause: Seconds between two attempts.
    """
    from websockets.exceptions import InvalidURI, WebSocketException
    from websockets.sync.client import connect

    token = os.environ.get("TAMULAG_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    while True:
        try:
            with connect(address, additional_headers=headers) as messages:
                yield from map(json.loads, messages)
            why = "the agent has ended"
        except (InvalidURI, OverflowError, ValueError) as error:
            sys.exit(f"{address}: {error}: give an address such as ws://127.0.0.1:8765/")
        except (OSError, WebSocketException) as error:
            why = f"{error}: is tamulag-stream running there? does it ask for TAMULAG_TOKEN?"
        print(f"{address}: {why} Again in {pause:g} s.", file=sys.stderr, flush=True)
        time.sleep(pause)


def main() -> None:
    """Publish until Ctrl-C."""
    try:
        import rclpy
        import websockets  # noqa: F401  # asked for here, so that its absence is reported before a start
        from hri_msgs.msg import Expression
        from rclpy.signals import SignalHandlerOptions
        from rclpy.utilities import remove_ros_args
    except ModuleNotFoundError as missing:
        sys.exit(
            f"{missing.name} is missing: "
            f"{REMEDIES.get(missing.name or '', 'see docs/guide/ros2.md')}"
        )

    arguments = remove_ros_args(sys.argv)[1:]
    # Its own handlers would only end ROS, not the wait for the next message.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("tamulag")
    publisher = node.create_publisher(Expression, "expression", 1)
    for message in listen(*arguments[:1] or ["ws://127.0.0.1:8765/"]):
        expression = Expression()
        if fill(expression, message):
            expression.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(expression)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
