"""YAML of studies: plain values only, every key once, aliases that expand to a bounded size."""

from __future__ import annotations

from typing import Any

import yaml

from ...errors import UsageError, shorten

_MOST_VALUES = 100_000
_MOST_BITS = 14_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader; refuses a key given twice, and aliases that expand to too many values."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _expanded(node, {}) > _MOST_VALUES:
            raise yaml.YAMLError(f"more than {_MOST_VALUES:,} values, with aliases (*name) expanded")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = int(super().construct_yaml_int(node))
        if value.bit_length() > _MOST_BITS:  # Python refuses to print larger ones
            raise yaml.YAMLError(f"a whole number of {value.bit_length():,} bits")
        return value

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        _refuse_repeated(node)
        return node


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _expanded(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """How many values a node has once every alias is replaced by what it stands for."""
    if node not in sizes:
        sizes[node] = _MOST_VALUES + 1  # while its own children are counted: an alias to itself never ends
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = isinstance(node, yaml.MappingNode)
        every = (part for child in children for part in (child if pairs else (child,)))
        sizes[node] = 1 + sum(_expanded(part, sizes) for part in every)
    return sizes[node]


def _refuse_repeated(node: yaml.MappingNode) -> None:
    """Refuse a mapping with a key twice: of two values one would be lost."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name, line = str(key.value), key.start_mark.line + 1
        if key.tag == "tag:yaml.org,2002:bool":  # on, yes and true are one key
            name = str(yaml.SafeLoader.bool_values[name.lower()])
        if name in lines:
            raise yaml.YAMLError(
                f"the key {shorten(key.value)!r} twice (lines {lines[name]} and {line}); keep one of them"
            )
        lines[name] = line


def read_yaml(text: str, *, where: str, wanted: str) -> Any:
    """The plain value that a YAML text stands for.

    Parameters
    ----------
    text : YAML, one document
    where : file or option, for messages
    wanted : what was expected there

    Raises
    ------
    UsageError : not YAML, a key twice in one mapping, objects, or aliases that expand to too much.
    """
    try:
        return yaml.load(text, _Loader)
    except Exception as exc:  # the parser raises many kinds for text that is not YAML
        reason = shorten(" ".join(str(exc).split()), 400) or type(exc).__name__
        raise UsageError(f"{where}: expected {wanted}, got {reason}") from exc
