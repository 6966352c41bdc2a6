"""Print the score of every device of a site: an MQTT subscriber.

pip install aiomqtt
python examples/subscribe_mqtt.py [HOST [PORT [SITE]]]
"""

import asyncio
import json
import sys

import aiomqtt


async def listen(host: str = "localhost", port: str = "1883", site: str = "+") -> None:
    """Print what comes until the broker is lost."""
    async with aiomqtt.Client(host, int(port)) as broker:
        for kind in ("state", "status"):
            await broker.subscribe(f"tamulag/v1/{site}/+/{kind}", qos=1)
        async for letter in broker.messages:
            device = str(letter.topic).split("/")[3]
            message = json.loads(letter.payload)
            if message["type"] == "status":
                print(device, message["state"], flush=True)
            elif message["sentiment"] is not None:
                print(device, f"{message['sentiment']:+.2f}", message["label"], flush=True)


if __name__ == "__main__":
    asyncio.run(listen(*sys.argv[1:]))
