"""What Home Assistant is told: against its documented keys, its templates, and a real broker."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiomqtt
import jinja2
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.broker import mosquitto, running, status
from support.waiting import within
from tamulag.streamer.app.build_agent import publishers_of
from tamulag.streamer.config.loader import load
from tamulag.streamer.publishers import home_assistant
from tamulag.streamer.publishers.mqtt import MqttPublisher

ROOT = "tamulag/v1/foyer/k7"
TEXT = {"type": "string", "minLength": 1}
TOPIC = {"type": "string", "pattern": "^[^+#]+$"}
AVAILABILITY = {
    "type": "object",
    "required": ["topic"],
    "properties": {
        "topic": TOPIC,
        "payload_available": TEXT,
        "payload_not_available": TEXT,
        "value_template": TEXT,
    },
    "additionalProperties": False,
}
ENTITY = {
    "state_topic": TOPIC,
    "value_template": TEXT,
    "unique_id": TEXT,
    "name": TEXT,
    "expire_after": {"type": "integer", "minimum": 1},
    "json_attributes_topic": TOPIC,
    "json_attributes_template": TEXT,
    "entity_category": {"enum": ["config", "diagnostic"]},
}
SENSOR = {
    "required": ["platform", "unique_id", "expire_after"],
    "properties": {
        **ENTITY,
        "platform": {"const": "sensor"},
        "state_class": {"enum": ["measurement", "total", "total_increasing"]},
        "suggested_display_precision": {"type": "integer"},
        "device_class": {"const": "enum"},
        "options": {"type": "array", "items": TEXT},
    },
    # Home Assistant: options go with the class enum alone, and with no state class.
    "dependentSchemas": {
        "options": {"required": ["device_class"], "not": {"required": ["state_class"]}}
    },
    "additionalProperties": False,
}
BINARY_SENSOR = {
    "required": ["platform", "unique_id", "state_topic"],
    "properties": {
        **ENTITY,
        "platform": {"const": "binary_sensor"},
        "device_class": {"const": "problem"},
    },
    "additionalProperties": False,
}
DOCUMENTED = {
    "type": "object",
    "required": ["device", "origin", "components"],
    "properties": {
        "device": {
            "type": "object",
            "required": ["identifiers"],
            "properties": {
                "identifiers": {"type": "array", "items": TEXT, "minItems": 1},
                **dict.fromkeys(["name", "manufacturer", "model", "sw_version"], TEXT),
            },
            "additionalProperties": False,
        },
        "origin": {
            "type": "object",
            "required": ["name"],
            "properties": dict.fromkeys(["name", "sw_version", "support_url"], TEXT),
            "additionalProperties": False,
        },
        "availability": {"type": "array", "items": AVAILABILITY},
        "availability_mode": {"enum": ["all", "any", "latest"]},
        "state_topic": TOPIC,
        "qos": {"enum": [0, 1, 2]},
        "encoding": TEXT,
        "components": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"oneOf": [SENSOR, BINARY_SENSOR]},
        },
    },
    "additionalProperties": False,
}
"""The keys of https://www.home-assistant.io/integrations/mqtt/, device discovery, in long form, and
those that we use of its sensors."""

SCORE = {
    "sentiment": 1.25,
    "label": "positive",
    "conflict": None,
    "modalities": {"text": {"sentiment": None}, "audio": {"sentiment": -0.5}},
}


def described(site: str = "foyer", device: str = "k7", hop: float = 0.5) -> dict[str, Any]:
    text = home_assistant.payload(root=ROOT, site=site, device=device, version="1.0", hop=hop)
    payload = json.loads(text)
    assert isinstance(payload, dict)
    return payload


def rendered(template: str, **message: object) -> str:
    """Render as Home Assistant does."""
    return jinja2.Environment(autoescape=False).from_string(template).render(value_json=message)


def test_it_has_the_documented_keys() -> None:
    """A message with a key that it does not know is dropped, and only its log says so."""
    jsonschema.Draft202012Validator.check_schema(DOCUMENTED)
    jsonschema.validate(described(), DOCUMENTED)


@pytest.mark.parametrize(
    ("component", "value"),
    [("sentiment", "1.25"), ("label", "positive"), ("audio", "-0.5"), ("text", "None")],
)
def test_each_sensor_finds_its_value(component: str, value: str) -> None:
    """The templates fit the message; None is what Home Assistant shows as unknown."""
    assert rendered(described()["components"][component]["value_template"], **SCORE) == value


@pytest.mark.parametrize(
    ("state", "available", "problem"),
    [("online", "online", "OFF"), ("degraded", "online", "ON"), ("offline", "offline", "ON")],
)
def test_degraded_is_a_problem_but_not_away(state: str, available: str, problem: str) -> None:
    """A camera that is lost does not take the voice's score off the wall; the will does."""
    (availability,) = described()["availability"]
    assert availability["topic"] == f"{ROOT}/status"
    assert rendered(availability["value_template"], state=state) == available
    template = described()["components"]["problem"]["value_template"]
    assert rendered(template, state=state) == problem


def test_an_old_score_expires() -> None:
    """No sensor shows for long what nobody measures any more, however slow the hops are."""
    assert described()["components"]["sentiment"]["expire_after"] == 10
    assert described(hop=10.0)["components"]["sentiment"]["expire_after"] == 40


LEVELS = st.text(min_size=1, max_size=8).filter(lambda text: not set(text) & set("/+#\0"))


@given(LEVELS, LEVELS, LEVELS, LEVELS)
def test_devices_are_distinct(site: str, device: str, site2: str, device2: str) -> None:
    """Each has a topic of its own, of characters that Home Assistant allows."""
    one, other = (home_assistant.identifier(*pair) for pair in [(site, device), (site2, device2)])
    assert (one == other) == ((site, device) == (site2, device2))
    assert set(one) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@pytest.mark.broker
def test_the_broker_keeps_it(tmp_path: Path) -> None:
    """With discovery on, a Home Assistant that starts later finds the device."""
    with mosquitto(tmp_path, "allow_anonymous true") as broker:
        settings = {"mqtt.url": broker.url, "mqtt.discovery": True, "websocket.enabled": False}
        (publisher,) = publishers_of(load(None, settings), Silent(), lambda *what: None)
        assert isinstance(publisher, MqttPublisher)

        async def scenario() -> None:
            async with running(publisher), aiomqtt.Client("127.0.0.1", broker.port) as late:
                await late.subscribe("homeassistant/#")
                message = await anext(late.messages)
                assert message.retain
                assert str(message.topic) == "homeassistant/device/tamulag_site_device/config"
                assert isinstance(message.payload, bytes)
                jsonschema.validate(json.loads(message.payload), DOCUMENTED)

        within(15, scenario())


@pytest.mark.broker
def test_nothing_is_announced_unless_asked_for(tmp_path: Path) -> None:
    """Other people's Home Assistant is left alone."""
    with mosquitto(tmp_path, "allow_anonymous true") as broker:
        (publisher,) = publishers_of(
            load(None, {"mqtt.url": broker.url, "websocket.enabled": False}),
            Silent(),
            lambda *what: None,
        )
        assert isinstance(publisher, MqttPublisher)

        async def scenario() -> None:
            async with running(publisher), aiomqtt.Client("127.0.0.1", broker.port) as late:
                await late.subscribe("#")
                found = {str((await anext(late.messages)).topic)}
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        found.add(str((await anext(late.messages)).topic))
                assert found == {"tamulag/v1/site/device/status"}

        within(15, scenario())


class Silent:
    """A service with nothing but its status."""

    def hello(self) -> str:
        return "{}"

    def gauges(self) -> dict[str, float]:
        return {}

    def offline(self, state: str) -> str:
        return status(state)
