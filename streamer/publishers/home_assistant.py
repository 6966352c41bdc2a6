"""The MQTT discovery message for Home Assistant (retained): the device and its sensors.

Knows Home Assistant's terms for devices and sensors, and our messages' fields. Knows no broker.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from importlib import metadata

from ..config.loader import Config
from ..core.sample import MODALITIES

NAMES = {"text": "Words", "audio": "Voice", "vision": "Face"}
EXPIRE_HOPS = 4
"""Hops without a score after which Home Assistant treats the last one as outdated."""

MIN_EXPIRE = 10
"""Least seconds until then: a broker that is briefly away is no news."""

_AVAILABILITY = "{{ 'offline' if value_json.state == 'offline' else 'online' }}"

Component = dict[str, object]


def discovery_messages(config: Config) -> dict[str, str]:
    """Return the discovery message by its topic; empty unless the settings ask for it."""
    if not config.mqtt.discovery:
        return {}
    site, device = config.session.site, config.session.device
    described = payload(
        root=f"tamulag/v1/{site}/{device}",
        site=site,
        device=device,
        version=metadata.version("tamulag-stream"),
        hop=config.session.hop,
    )
    return {topic(config.mqtt.discovery_prefix, site, device): described}


def topic(prefix: str, site: str, device: str) -> str:
    """Return the discovery topic of a device."""
    return f"{prefix}/device/{identifier(site, device)}/config"


def identifier(site: str, device: str) -> str:
    """Return the device's identifier for Home Assistant: letters, digits, _ and - alone.

    It is unique per device: where characters had to be replaced a checksum is appended.
    """
    plain = f"tamulag_{site}_{device}"
    clean = re.sub(r"[^A-Za-z0-9-]", "_", plain)
    if clean == plain and "_" not in site + device:
        return clean
    return f"{clean}_{hashlib.sha256(f'{site}/{device}'.encode()).hexdigest()[:8]}"


def payload(*, root: str, site: str, device: str, version: str, hop: float) -> str:
    """Return the JSON that describes the device and its sensors.

    Args:
        root: Our topics without their last level, e.g. `tamulag/v1/site/device`.
        site: From the settings.
        device: From the settings.
        version: Of the program.
        hop: Seconds between two scores.
    """
    name = identifier(site, device)
    described = {
        "device": {
            "identifiers": [name],
            "name": f"Sentiment {site} {device}",
            "manufacturer": "tamulag-stream",
            "model": "TAM-ULAG",
            "sw_version": version,
        },
        "origin": {"name": "tamulag-stream", "sw_version": version},
        "availability": [{"topic": f"{root}/status", "value_template": _AVAILABILITY}],
        "state_topic": f"{root}/state",
        "qos": 1,
        "components": {key: _with_id(name, key, part) for key, part in _components(root, hop)},
    }
    return json.dumps(described, ensure_ascii=False)


def _with_id(name: str, key: str, part: Mapping[str, object]) -> Component:
    return {**part, "unique_id": f"{name}_{key}"}


def _components(root: str, hop: float) -> Iterator[tuple[str, Component]]:
    yield "sentiment", _number("Sentiment", "value_json.sentiment", hop)
    yield "trend", _number("Trend", "value_json.trend", hop)
    yield "label", _word(hop)
    for modality in MODALITIES:
        field = f"value_json.modalities.{modality}.sentiment"
        yield modality, _number(NAMES[modality], field, hop)
    yield "conflict", _number("Conflict", "value_json.conflict", hop)
    yield "problem", _problem(root)


def _number(name: str, field: str, hop: float) -> Component:
    # A null becomes the word None, which Home Assistant shows as unknown.
    return {
        "platform": "sensor",
        "name": name,
        "value_template": f"{{{{ {field} }}}}",
        "state_class": "measurement",
        "suggested_display_precision": 1,
        "expire_after": _expire_after(hop),
    }


def _word(hop: float) -> Component:
    return {
        "platform": "sensor",
        "name": "Label",
        "value_template": "{{ value_json.label }}",
        "device_class": "enum",
        "options": ["negative", "neutral", "positive"],
        "expire_after": _expire_after(hop),
    }


def _problem(root: str) -> Component:
    return {
        "platform": "binary_sensor",
        "name": "Problem",
        "state_topic": f"{root}/status",
        "value_template": "{{ 'OFF' if value_json.state == 'online' else 'ON' }}",
        "device_class": "problem",
        "entity_category": "diagnostic",
        "json_attributes_topic": f"{root}/status",
        "json_attributes_template": "{{ value_json.lost | tojson }}",
    }


def _expire_after(hop: float) -> int:
    return max(MIN_EXPIRE, math.ceil(EXPIRE_HOPS * hop))
