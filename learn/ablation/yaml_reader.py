"""Safe reader of YAML: only plain values, no repeated keys, and a limit on the size of expanded aliases."""

from __future__ import annotations

from typing import Any

import yaml

from ...errors import UsageError, shorten

_MAX_VALUES = 100_000
_MAX_BITS = 14_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also raises errors for repeated keys and for too many values."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _expanded(node, {}) > _MAX_VALUES:
            raise yaml.YAMLError(f"more than {_MAX_VALUES:,} values, with aliases (*name) expanded")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = int(super().construct_yaml_int(node))
        if value.bit_length() > _MAX_BITS:  # Python cannot print larger numbers
            raise yaml.YAMLError(f"a whole number of {value.bit_length():,} bits")
        return value

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        _refuse_repeated(node)
        return node


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _expanded(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Number of values of a node with every alias expanded."""
    if node not in sizes:
        sizes[node] = _MAX_VALUES + 1  # used if a child is an alias of this node, which would never end
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = isinstance(node, yaml.MappingNode)
        every = (part for child in children for part in (child if pairs else (child,)))
        sizes[node] = 1 + sum(_expanded(part, sizes) for part in every)
    return sizes[node]


def _refuse_repeated(node: yaml.MappingNode) -> None:
    """Raise an error for a mapping with a repeated key, of which only the last value would be used."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name, line = str(key.value), key.start_mark.line + 1
        if key.tag == "tag:yaml.org,2002:bool":  # on, yes and true are the same key
            name = str(yaml.SafeLoader.bool_values[name.lower()])
        if name in lines:
            raise yaml.YAMLError(
                f"the key {shorten(key.value)!r} is repeated (lines {lines[name]} and {line}); keep one of them"
            )
        lines[name] = line


def read_yaml(text: str, *, source: str, content: str) -> Any:
    """Plain value (mapping, list, text, number, ...) of a YAML text.

    Parameters
    ----------
    text : one YAML document
    source : file or option, for messages
    content : expected content, for messages

    Raises
    ------
    UsageError : the text is not YAML, or has a repeated key, an object or too many values.
    """
    try:
        return yaml.load(text, _Loader)
    except Exception as exc:  # the parser raises many types of errors for text that is not YAML
        reason = shorten(" ".join(str(exc).split()), 400) or type(exc).__name__
        raise UsageError(f"{source}: cannot be read as {content}: {reason}") from exc
