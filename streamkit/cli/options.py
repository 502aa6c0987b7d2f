"""What all commands share: target options, examples in the help, values with units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from streamkit.errors import UsageError
from streamkit.units import parse_duration_s, parse_size_bytes

if TYPE_CHECKING:
    from click.types import OptionHelpExtra

    from streamkit.client.tls import Tls
    from streamkit.target import Target

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class TargetOptions:
    """The target options, given before or after the subcommand."""

    cluster: str | None = None
    profile: str | None = None
    embedded: bool = False
    data_dir: str | None = None
    tls: bool = False
    enable_client_cert: bool = False
    domain: str | None = None
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None


def target_options_of(context: click.Context) -> TargetOptions:
    """Return the target options parsed so far; one object for the whole command line."""
    options = context.find_root().ensure_object(TargetOptions)
    assert isinstance(options, TargetOptions)
    return options


def chosen_target(settings_cluster: str | None = None) -> Target:
    """Choose the target from the options of the running command; see `streamkit.target.choose`.

    Raises:
        ConfigError: The options contradict each other, or the profile cannot be used.
    """
    from streamkit.target import choose

    options = target_options_of(click.get_current_context())
    return choose(
        cluster=options.cluster,
        profile=options.profile,
        embedded=options.embedded,
        data_dir=options.data_dir,
        settings_cluster=settings_cluster,
        tls=tls_of(options),
    )


def tls_of(options: TargetOptions) -> Tls | None:
    """Return the TLS configuration that the options describe; None without ``--tls``.

    As in Fluvio's own commands, ``--tls`` alone encrypts without checking any certificate. With a
    CA certificate or a domain, the client verifies the server. With ``--enable-client-cert``, the
    client also presents its own certificate.

    Raises:
        UsageError: An option is given that would have no effect, or one is missing.
    """
    given_certs = [_option(name) for name in _CLIENT_CERT_NAMES if getattr(options, name)]
    if options.enable_client_cert and len(given_certs) < len(_CLIENT_CERT_NAMES):
        raise UsageError(
            "--enable-client-cert needs --client-cert and --client-key",
            hint="give the files with the client's certificate and its key",
        )
    if given_certs and not options.enable_client_cert:
        raise UsageError(
            f"{given_certs[0]} has no effect without --enable-client-cert",
            hint="add --enable-client-cert",
        )
    given = [_option(name) for name in _TLS_NAMES if getattr(options, name)]
    if given and not options.tls:
        raise UsageError(f"{given[0]} needs --tls", hint="add --tls")
    if not options.tls:
        return None
    from streamkit.client.tls import Tls

    return Tls(
        anonymous=not given,
        domain=options.domain,
        ca_cert=_path(options.ca_cert),
        client_cert=_path(options.client_cert),
        client_key=_path(options.client_key),
    )


_CLIENT_CERT_NAMES: Final = ("client_cert", "client_key")
_TLS_NAMES: Final = ("enable_client_cert", "domain", "ca_cert", *_CLIENT_CERT_NAMES)


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def with_target_options(command: F) -> F:
    """Add ``--cluster``, ``--profile``, ``--embedded``, ``--data-dir`` and the TLS options.

    The TLS options are hidden: only the help of ``streamkit`` itself shows them.
    """
    return _with_target_options(_with_tls_options(command, hidden=True), "", "")


def with_target_and_tls_options(command: F) -> F:
    """Add the target options, with the TLS options shown in the command's help."""
    return _with_target_options(_with_tls_options(command), "", "")


def with_root_target_options(command: F) -> F:
    """Add the target options of ``streamkit`` itself, which also accept ``-c`` and ``-P``."""
    return _with_target_options(_with_tls_options(command), "-c", "-P")


def _with_tls_options(command: F, *, hidden: bool = False) -> F:
    for decorate in (
        _target_option(
            "--client-key", metavar="FILE", hidden=hidden, help="TLS: key of the client certificate"
        ),
        _target_option(
            "--client-cert", metavar="FILE", hidden=hidden, help="TLS: client certificate"
        ),
        _target_option(
            "--ca-cert", metavar="FILE", hidden=hidden, help="TLS: CA certificate to trust"
        ),
        _target_option("--domain", metavar="NAME", hidden=hidden, help="TLS: expected server name"),
        _target_option(
            "--enable-client-cert",
            is_flag=True,
            hidden=hidden,
            help="TLS: present a client certificate",
        ),
        _target_option(
            "--tls",
            is_flag=True,
            hidden=hidden,
            help="Use TLS; without the other TLS options, the server is not verified",
        ),
    ):
        command = decorate(command)
    return command


def _target_option(*names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(
        *filter(None, names), cls=Option, expose_value=False, callback=_remember, **settings
    )


def _with_target_options(command: F, short_cluster: str, short_profile: str) -> F:
    for decorate in (
        _target_option(
            "--data-dir",
            metavar="DIR",
            show_default="./.streamkit",
            help="Directory of the embedded broker and of saved state",
        ),
        _target_option(
            "--embedded",
            is_flag=True,
            help="Use the embedded broker even if a cluster or profile is configured",
        ),
        _target_option(
            short_profile,
            "--profile",
            metavar="NAME",
            help="Use this profile of Fluvio's profile file",
        ),
        _target_option(
            short_cluster,
            "--cluster",
            metavar="HOST:PORT",
            help="Connect to the cluster whose SC has this address",
        ),
    ):
        command = decorate(command)
    return command


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is None or value is False:
        return
    check_not_empty(parameter, value)
    options, name = target_options_of(context), str(parameter.name)
    before = getattr(options, name)
    if before and before != value:
        raise click.UsageError(f"{_option(name)} is given twice: {before!r} and {value!r}", context)
    setattr(options, name, value)


def check_not_empty(parameter: click.Parameter, value: Any) -> None:
    """Refuse an option or argument with an empty value.

    Raises:
        UsageError: The value is blank, or one of several values is.
    """
    if any(isinstance(each, str) and not each.strip() for each in _values(value)):
        is_option = isinstance(parameter, click.Option)
        what = parameter.opts[-1] if is_option else parameter.human_readable_name
        raise UsageError(f"{what} is empty", hint="leave it out, or give it a value")


def _values(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class Option(click.Option):
    """An option whose default is described in ``show_default``, and shown without parentheses."""

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


class WithExamples(click.Command):
    """A command or group whose help ends with examples."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.help = "Show this message and exit"
        return option

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            formatter.write("\nExamples:\n")
            formatter.write("".join(f"  {example}\n" for example in self.examples))


class Command(WithExamples):
    """A command that refuses empty values, except for the options in ``may_be_empty``."""

    def __init__(self, *args: Any, may_be_empty: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.may_be_empty = may_be_empty

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            if parameter.name in ctx.params and parameter.name not in self.may_be_empty:
                check_not_empty(parameter, ctx.params[parameter.name])
        return rest


class Group(WithExamples, click.Group):
    """A group of commands."""


class Duration(click.ParamType[float]):
    """Seconds, or numbers with units: ``90``, ``500ms``, ``1h 30m``, ``2 weeks``."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration_s(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Size(click.ParamType[int]):
    """Bytes: ``1048576``, ``64KiB``, ``10MB``."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION: Final = Duration()
SIZE: Final = Size()
