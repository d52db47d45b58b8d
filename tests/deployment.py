"""Reads the files of a deployment into plain values, as far as the shipped ones need it."""

import ast
import fnmatch
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent

_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<rest>[^}]*))?\}")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
# Values for what docker-compose.yml demands.
REQUIRED = {"BANYAN_SECRETS": "./secrets", "PLATFORM_HOSTS": "platform.example"}


@dataclass(frozen=True)
class Variable:
    """One `${NAME…}` in docker-compose.yml: its default, or the sentence that is said where it is missing."""

    name: str
    default: str | None
    complaint: str | None


def compose_variables() -> list[Variable]:
    """Return every use of a variable in docker-compose.yml."""
    text = (ROOT / "docker-compose.yml").read_text()
    return [
        Variable(
            found["name"],
            found["rest"] if found["kind"] == ":-" else None,
            found["rest"] if found["kind"] == ":?" else None,
        )
        for found in _VARIABLE.finditer(text)
        if found["name"]
    ]


def compose(environment: Mapping[str, str] = REQUIRED) -> dict[str, Any]:
    """Return docker-compose.yml as compose reads it under `environment`; raises KeyError for a variable it demands."""

    def value(found: re.Match[str]) -> str:
        if not found["name"]:
            return "$"
        if found["kind"] == ":-":
            return environment.get(found["name"]) or str(found["rest"])
        return environment[found["name"]]

    def resolve(node: Any) -> Any:
        if isinstance(node, str):
            return _VARIABLE.sub(value, node)
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if isinstance(node, dict):
            return {key: resolve(item) for key, item in node.items()}
        return node

    read: dict[str, Any] = resolve(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))
    return read


def option(arguments: list[str], name: str) -> str:
    """Return the value of `--name=value` or `--name value`; raises LookupError if it is not there."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == name:
            return following
        if argument.startswith(f"{name}="):
            return argument.split("=", 1)[1]
    raise LookupError(f"no {name} in {arguments}")


def seconds(duration: str) -> float:
    """Return a duration of compose or nginx ("11m", "75s") in seconds."""
    return sum(float(amount) * _SECONDS[unit] for amount, unit in re.findall(r"([\d.]+)([smh])", duration))


@dataclass
class Stage:
    """One stage of the Dockerfile, and its instructions in order: (name in capitals, arguments)."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Return the arguments of every instruction of that name."""
        return [arguments for found, arguments in self.instructions if found == name]

    def copies(self) -> list[tuple[str | None, list[str], str]]:
        """Return (stage it comes from, sources, destination) of every COPY."""
        found = []
        for arguments in self.all("COPY"):
            words = shlex.split(arguments)
            stage = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
            *sources, destination = [word for word in words if not word.startswith("--")]
            found.append((stage, sources, destination))
        return found

    def environment(self) -> dict[str, str]:
        """Return what ENV sets."""
        return dict(word.split("=", 1) for arguments in self.all("ENV") for word in shlex.split(arguments))


def dockerfile() -> dict[str, Stage]:
    """Return the Dockerfile's stages by name, in order."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    stages: dict[str, Stage] = {}
    stage = Stage("", "")
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, arguments = line.split(maxsplit=1)
        if name == "FROM":
            base, _, stage_name = arguments.split()
            stage = stages[stage_name] = Stage(stage_name, base)
        else:
            stage.instructions.append((name, arguments.strip()))
    return stages


def image_command() -> list[str]:
    """Return the image's own command."""
    command: list[str] = json.loads(list(dockerfile().values())[-1].all("CMD")[-1])
    return command


def let_into_the_image(path: str) -> bool:
    """Tell whether .dockerignore lets a path, relative to the root, into the build: the last rule that fits decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        if _rule_fits(rule.removeprefix("!"), path):
            kept = rule.startswith("!")
    return kept


def _rule_fits(pattern: str, path: str) -> bool:
    parts = path.split("/")
    ancestors = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    if pattern.startswith("**/"):
        return any(fnmatch.fnmatchcase(part, pattern.removeprefix("**/")) for part in parts)
    return any(fnmatch.fnmatchcase(ancestor, pattern) for ancestor in ancestors)


@dataclass
class Block:
    """A block of nginx's configuration: its head ("location", "/api/"), its directives, its inner blocks."""

    head: tuple[str, ...]
    directives: list[tuple[str, ...]] = field(default_factory=list)
    blocks: list["Block"] = field(default_factory=list)

    def one(self, *path: str) -> "Block":
        """Return the only inner block whose head is `path`."""
        (found,) = [block for block in self.blocks if block.head == path]
        return found

    def get(self, name: str) -> tuple[str, ...]:
        """Return the arguments of the only directive of that name; raises ValueError if there is not just one."""
        (found,) = [arguments for directive, *arguments in self.directives if directive == name]
        return tuple(found)


def nginx(text: str) -> Block:
    """Parse a configuration of nginx."""
    token = re.compile(
        r"\s+|#[^\n]*|(?P<quoted>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|(?P<mark>[{};])|(?P<word>(?:\$\{\w+\}|[^\s{};])+)"
    )
    stack, words = [Block(())], list[str]()
    for found in token.finditer(text):
        if found["quoted"] or found["word"]:
            words.append(found["quoted"][1:-1] if found["quoted"] else found["word"])
        elif found["mark"] == ";":
            stack[-1].directives.append(tuple(words))
            words = []
        elif found["mark"] == "{":
            block = Block(tuple(words))
            stack[-1].blocks.append(block)
            stack.append(block)
            words = []
        elif found["mark"] == "}":
            stack.pop()
    (whole,) = stack
    return whole


def settings_variables() -> set[str]:
    """Return the name of every environment variable that saas/settings.py reads by `env.<type>("NAME", …)`."""
    tree = ast.parse((ROOT / "saas" / "settings.py").read_text())
    return {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "env"
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }
