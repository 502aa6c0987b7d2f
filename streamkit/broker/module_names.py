"""Names of SmartModules: plain names, and ``group/name@version``. Pure.

Source: docs/protocol/smartmodules.md, "Naming a module".
"""

from __future__ import annotations

from dataclasses import dataclass

from streamkit.errors import RemoteProtocolError
from streamkit.protocol.connection import SEMVER
from streamkit.protocol.specs import ModulePackage, SmartModuleSpec


@dataclass(frozen=True, slots=True)
class ModuleName:
    """The name of a module in a request; a missing part is None."""

    name: str
    group: str | None = None
    version: str | None = None

    @property
    def key(self) -> str:
        """The name under which the module is stored, if all parts are given."""
        return "-".join(filter(None, (self.name, self.group, self.version)))

    def matches(self, stored_as: str, spec: SmartModuleSpec) -> bool:
        """Return whether a filter with this name matches a module."""
        if spec.meta is None:
            return stored_as == self.name and self.group is None and self.version is None
        package = spec.meta.package
        return (
            package.name == self.name
            and self.group in (None, package.group)
            and self.version in (None, package.version)
        )


def parse_module_name(text: str) -> ModuleName:
    """Parse ``name``, ``group/name`` or ``group/name@version``.

    Raises:
        RemoteProtocolError: The version is not valid; the stock SC closes the connection then.
    """
    rest, at, version = text.partition("@")
    if at and not SEMVER.fullmatch(version):
        raise RemoteProtocolError(f"module {text!r}: {version!r} is not a valid version", at=0)
    group, slash, name = rest.partition("/")
    if not slash:
        return ModuleName(rest, None, version or None)
    return ModuleName(name, group, version or None)


def key_of(name: str, spec: SmartModuleSpec) -> str:
    """Return the name under which a module is stored."""
    if spec.meta is None:
        return name
    package: ModulePackage = spec.meta.package
    return ModuleName(package.name, package.group, package.version).key
