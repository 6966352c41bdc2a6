"""Let a robot answer the mood of the person in front of it: camera and microphone in, faces out.

    python examples/robot_loop.py [CAMERA [MICROPHONE]]

CAMERA is an index or the URL of a network camera, MICROPHONE a name; `none` is none of them.
"""

import asyncio
import sys

from tamulag.streamer import Agent, Camera, Estimate, Microphone, TamulagError

SURE = 2.0
"""Width of the interval, on a scale from -3 to 3, below which the robot shows what it feels."""


def face_for(estimate: Estimate) -> str:
    """Return what the robot's face does."""
    if estimate.sentiment is None:
        missing = {part.reason for part in estimate.modalities.values() if part.reason}
        return f"looks around ({', '.join(sorted(missing))})"
    if estimate.interval is None or abs(estimate.sentiment) < 0.5:
        return "listens"
    low, high = estimate.interval
    mood = "smiles" if estimate.sentiment > 0 else "looks concerned"
    return mood if high - low < SURE else f"{mood} a little"


async def live(camera: str = "0", microphone: str = "default") -> None:
    """Follow the mood until Ctrl-C; a device that is lost is opened again meanwhile."""
    cameras = [Camera(camera)] if camera != "none" else []
    microphones = [Microphone(microphone)] if microphone != "none" else []
    async with Agent([*cameras, *microphones]) as agent:
        print("ready", flush=True)
        before = None
        async for estimate in agent.estimates():
            now = face_for(estimate)
            if now != before:  # move the robot's own motors here
                print(f"{estimate.end:6.1f} s: the robot {now}", flush=True)
            before = now


if __name__ == "__main__":
    try:
        asyncio.run(live(*sys.argv[1:3]))
    except TamulagError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
