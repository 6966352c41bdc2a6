"""Print the score of every device of a site: an MQTT subscriber.

pip install aiomqtt
python examples/subscribe_mqtt.py [HOST [PORT [SITE]]]
"""

import asyncio
import json
import sys

try:
    import aiomqtt
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is missing: pip install aiomqtt")


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


def main(*arguments: str) -> None:
    """Listen until Ctrl-C; end with one line if that cannot be."""
    if len(arguments) > 3:
        sys.exit(f"{' '.join(arguments)}: give at most HOST PORT SITE")
    try:
        asyncio.run(listen(*arguments))
    except (OverflowError, ValueError, aiomqtt.MqttError) as error:
        remedy = "is a broker running there that lets in without a password? give HOST PORT SITE"
        sys.exit(f"{' '.join(arguments) or 'localhost'}: {error}: {remedy}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
