"""Publish the live score as hri_msgs/Expression, for robots that run ROS 2.

    python examples/ros2_bridge.py --ros-args -r expression:=/humans/faces/anonymous/expression

Needs ROS 2 with hri_msgs (apt install ros-jazzy-hri-msgs) and `pip install websockets` in the same
Python. The mapping, `fill`, needs neither.
"""

import json
from typing import Any

WORDS = {"positive": "happy", "neutral": "neutral", "negative": "sad"}
WIDEST = 6.0  # an interval as wide as the whole scale says nothing


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


def main(address: str = "ws://127.0.0.1:8765/") -> None:
    """Publish until the agent ends or Ctrl-C."""
    import rclpy
    from hri_msgs.msg import Expression
    from websockets.sync.client import connect

    rclpy.init()
    node = rclpy.create_node("tamulag")
    publisher = node.create_publisher(Expression, "expression", 1)
    with connect(address) as scores:
        for text in scores:
            expression = Expression()
            if fill(expression, json.loads(text)):
                expression.header.stamp = node.get_clock().now().to_msg()
                publisher.publish(expression)


if __name__ == "__main__":
    main()
