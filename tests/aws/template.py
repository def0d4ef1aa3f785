"""The CloudFormation file of deploy/aws, with the functions that it has computed, as far as tests need them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

FILE: Final = Path(__file__).parents[2] / "deploy" / "aws" / "airunner.yaml"
REGION: Final = "eu-central-1"
ACCOUNT: Final = "000000000000"  # of the emulator
_PSEUDO: Final = {"AWS::Region": REGION, "AWS::AccountId": ACCOUNT, "AWS::Partition": "aws"}
_PATHS: Final = {  # of ARNs, by type of resource; the name follows
    "AWS::DynamoDB::Table": "dynamodb:{}:{}:table/",
    "AWS::Events::EventBus": "events:{}:{}:event-bus/",
    "AWS::SQS::Queue": "sqs:{}:{}:",
}
_NAMED: Final = ("TableName", "QueueName", "Name")


class _Loader(yaml.SafeLoader):
    """Loader that knows the short forms of functions."""


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any = loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None
    if isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    if suffix == "GetAtt":
        value = value.split(".")
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _function)


class Template:
    """Template with the values of its parameters."""

    def __init__(self, **given: str) -> None:
        self.text = FILE.read_text()
        self.content: dict[str, Any] = yaml.load(self.text, _Loader)
        defaults = {name: parameter["Default"] for name, parameter in self.content["Parameters"].items()}
        self.parameters: Mapping[str, str] = defaults | given

    def properties(self, name: str) -> dict[str, Any]:
        """The properties of a resource, with its functions computed."""
        resolved: dict[str, Any] = self.resolved(self.content["Resources"][name]["Properties"])
        return resolved

    def output(self, name: str) -> str:
        """The value of an output."""
        return str(self.resolved(self.content["Outputs"][name]["Value"]))

    def resolved(self, value: Any) -> Any:
        """A value whose functions are computed: of references to resources, those that have names."""
        match value:
            case {"Ref": name}:
                return self._referred(name)
            case {"Fn::Sub": words}:
                return re.sub(r"\$\{([^}]+)\}", lambda found: str(self._referred(found[1])), words)
            case {"Fn::GetAtt": [name, "Arn"]}:
                return self._referred(f"{name}.Arn")
            case dict():
                return {key: self.resolved(part) for key, part in value.items()}
            case list():
                return [self.resolved(part) for part in value]
        return value

    def _referred(self, name: str) -> Any:
        if name in self.parameters:
            return self.parameters[name]
        if name in _PSEUDO:
            return _PSEUDO[name]
        resource, _, attribute = name.partition(".")
        content = self.content["Resources"][resource]
        path = _PATHS.get(content["Type"])
        if path is None:
            return name
        (own,) = [content["Properties"][key] for key in _NAMED if key in content["Properties"]]
        return f"arn:aws:{path.format(REGION, ACCOUNT)}{self.resolved(own)}" if attribute else self.resolved(own)
