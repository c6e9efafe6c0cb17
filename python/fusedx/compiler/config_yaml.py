"""Reads config.yml as the DiffMIC training run saves it: YAML whose mappings carry one Python tag, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusedx.compiler.torch_file import printable
from fusedx.engine.errors import CheckpointError, UnavailableError

#: The only tag that is accepted, and it becomes a plain mapping: nothing is constructed from its name.
NAMESPACE_TAG = "tag:yaml.org,2002:python/object:argparse.Namespace"
#: Real ones have 2 KB; a parser in Python is slow enough that a megabyte would be an attack.
_MAX_BYTES = 64 << 10


def load(path: Path) -> dict[str, Any]:
    """The configuration as nested dicts, lists and scalars."""
    try:
        import yaml
    except ImportError:
        raise UnavailableError("compiling a checkpoint needs pyyaml: pip install 'fusedx[compile]'") from None

    class Loader(yaml.SafeLoader):
        """SafeLoader plus the one tag, without repeated keys, and with aliases of scalars and flat lists alone.

        Training code writes an alias where two settings share a list; aliases of anything deeper make a small file expand
        without bound.
        """

        def compose_node(self, parent: Any, index: Any) -> Any:
            is_alias = self.check_event(yaml.events.AliasEvent)
            node = super().compose_node(parent, index)
            parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
            if is_alias and not all(isinstance(part, yaml.ScalarNode) for part in parts):
                raise yaml.YAMLError("aliases of mappings and nested lists are not accepted; write the value out")
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            mapping = super().construct_mapping(node, deep=True)
            if len(mapping) != len(node.value):
                seen: set[Any] = set()
                for key_node, _ in node.value:
                    key = self.construct_object(key_node, deep=True)
                    if key in seen:
                        raise yaml.YAMLError(f"the key {key!r} is given twice")
                    seen.add(key)
            return mapping

    Loader.add_constructor(NAMESPACE_TAG, Loader.construct_mapping)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{path} is larger than {_MAX_BYTES >> 10} KiB, which no training configuration is")
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506: the loader above is a restricted SafeLoader
    except (yaml.YAMLError, ArithmeticError, LookupError, ValueError, TypeError, RecursionError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        text = printable(" ".join(str(error).split()), 300)
        raise CheckpointError(f"{path} is refused: {text}. Only plain YAML and the argparse.Namespace tag are read") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a mapping")
    return value
