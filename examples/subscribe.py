"""Print the live score: a WebSocket client in Python.

    pip install websockets
    python examples/subscribe.py [ws://127.0.0.1:8765/]

Where a token is asked for, it is taken from the environment variable TAMULAG_TOKEN.
"""

import json
import os
import sys

from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

address = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8765/"
token = os.environ.get("TAMULAG_TOKEN")
headers = {"Authorization": f"Bearer {token}"} if token else {}

try:
    with connect(address, additional_headers=headers) as scores:
        for message in map(json.loads, scores):
            if message["type"] == "sentiment" and message["sentiment"] is not None:
                print(f"{message['sentiment']:+.2f} {message['label']}", flush=True)
            elif message["type"] == "status":
                print(message["state"], *message["lost"].values(), flush=True)
except ConnectionClosedError as closed:
    sys.exit(f"{address}: {closed}")
