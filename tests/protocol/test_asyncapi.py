"""The AsyncAPI document: whole, true to the code, and printed by the command line."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
from typer.testing import CliRunner

from tamulag.streamer.cli.main import app
from tamulag.streamer.protocol.asyncapi import document
from tamulag.streamer.protocol.ingest import SoundHeader

DOCUMENT = document()


def references(node: Any) -> Iterator[str]:
    """Yield every reference in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def found(reference: str) -> Any:
    place: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        place = place[part]
    return place


def test_every_reference_leads_somewhere() -> None:
    """A generator of clients can follow each."""
    names = set(references(DOCUMENT))
    assert len(names) > 20
    assert all(found(name) for name in names)


def test_it_has_what_asyncapi_asks_for() -> None:
    """Version, title, channels with an address, operations that send or receive."""
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    assert {c["address"] for c in DOCUMENT["channels"].values()} >= {"/", "/ingest"}
    actions = {name: o["action"] for name, o in DOCUMENT["operations"].items()}
    assert actions.pop("ingest") == "receive"
    assert set(actions.values()) == {"send"}


def test_its_schemas_are_those_of_the_code() -> None:
    """A header that the parser takes is valid, one with a foreign key is not."""
    schema = {"$ref": "#/components/schemas/SoundHeader", "components": DOCUMENT["components"]}
    header = SoundHeader(timestamp=1.5, position=320).model_dump()
    jsonschema.validate(header, schema)
    assert not jsonschema.Draft202012Validator(schema).is_valid(header | {"rate": 44100})


def test_the_command_line_prints_it() -> None:
    """`tamulag schema --asyncapi`; without the option it is the JSON Schema as ever."""
    runner = CliRunner()
    assert json.loads(runner.invoke(app, ["schema", "--asyncapi"]).stdout) == DOCUMENT
    assert "$defs" in json.loads(runner.invoke(app, ["schema"]).stdout)
