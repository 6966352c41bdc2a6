"""Print the live score: a WebSocket client in Python.

    pip install websockets
    python examples/subscribe.py [ws://127.0.0.1:8765/]

Where a token is asked for, it is taken from the environment variable TAMULAG_TOKEN.
"""

import json
import os
import sys

try:
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is missing: pip install websockets")

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
except (OSError, OverflowError, ValueError, WebSocketException) as error:
    remedy = "is tamulag-stream running there? does it ask for TAMULAG_TOKEN?"
    sys.exit(f"{address}: {error or type(error).__name__}: {remedy}")
except KeyboardInterrupt:
    pass
