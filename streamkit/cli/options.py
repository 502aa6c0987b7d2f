"""What all commands share: where to work, examples in the help, values with units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from streamkit.errors import UsageError
from streamkit.units import parse_duration_s, parse_size_bytes

if TYPE_CHECKING:
    from streamkit.client.tls import Tls
    from streamkit.target import Target

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class TargetOptions:
    """What the options say of the place, before or after the subcommand."""

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


def named(context: click.Context) -> TargetOptions:
    """Return what was named so far; one object for the whole command line."""
    found = context.find_root().ensure_object(TargetOptions)
    assert isinstance(found, TargetOptions)
    return found


def chosen(settings_cluster: str | None = None) -> Target:
    """Choose the place from the options of the running command; see `streamkit.target.choose`.

    Raises:
        ConfigError: The options contradict each other, or the profile cannot be used.
    """
    from streamkit.target import choose

    options = named(click.get_current_context())
    return choose(
        cluster=options.cluster,
        profile=options.profile,
        embedded=options.embedded,
        data_dir=options.data_dir,
        settings_cluster=settings_cluster,
        tls=tls_of(options),
    )


def tls_of(options: TargetOptions) -> Tls | None:
    """Return what the TLS options ask for; None where they are not given.

    As in Fluvio's own commands ``--tls`` alone encrypts and checks nothing. With an authority or
    a domain the server is checked; with ``--enable-client-cert`` the client shows its own
    certificate, too.

    Raises:
        UsageError: An option is given that would have no effect, or one is missing.
    """
    named_certs = [_option(name) for name in _CLIENT_CERT_NAMES if getattr(options, name)]
    if options.enable_client_cert and len(named_certs) < len(_CLIENT_CERT_NAMES):
        raise UsageError(
            "--enable-client-cert needs --client-cert and --client-key",
            hint="name the files that hold the client's certificate and its key",
        )
    if named_certs and not options.enable_client_cert:
        raise UsageError(
            f"{' and '.join(named_certs)} without --enable-client-cert would not be used",
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


def place_options(command: F) -> F:
    """Give a command ``--cluster``, ``--profile``, ``--embedded``, ``--data-dir``, and those of
    TLS, which only the help of ``streamkit`` shows.
    """
    return _place_options(_tls_options(command, hidden=True), "", "")


def place_and_tls_options(command: F) -> F:
    """The same, for a command whose help shows all of them."""
    return _place_options(_tls_options(command), "", "")


def root_place_options(command: F) -> F:
    """The same for the command ``streamkit`` itself, where the short letters count too."""
    return _place_options(_tls_options(command), "-c", "-P")


def _tls_options(command: F, *, hidden: bool = False) -> F:
    for decorate in (
        _noted("--client-key", metavar="FILE", hidden=hidden, help="TLS: its key"),
        _noted("--client-cert", metavar="FILE", hidden=hidden, help="TLS: the client's own"),
        _noted("--ca-cert", metavar="FILE", hidden=hidden, help="TLS: who vouches for servers"),
        _noted("--domain", metavar="NAME", hidden=hidden, help="TLS: what the servers are called"),
        _noted(
            "--enable-client-cert",
            is_flag=True,
            hidden=hidden,
            help="TLS: show the client's own certificate",
        ),
        _noted(
            "--tls",
            is_flag=True,
            hidden=hidden,
            help="Use TLS; alone it checks no certificate",
        ),
    ):
        command = decorate(command)
    return command


def _noted(*names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(*filter(None, names), expose_value=False, callback=_note, **settings)


def _place_options(command: F, short_cluster: str, short_profile: str) -> F:
    for decorate in (
        _noted(
            "--data-dir",
            metavar="DIR",
            help="Where the embedded broker and state lie [./.streamkit]",
        ),
        _noted("--embedded", is_flag=True, help="Use the embedded broker, whatever else is set"),
        _noted(short_profile, "--profile", metavar="NAME", help="A profile of Fluvio's own file"),
        _noted(short_cluster, "--cluster", metavar="HOST:PORT", help="The SC of a cluster"),
    ):
        command = decorate(command)
    return command


def _note(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is None or value is False:
        return
    check_not_empty(parameter, value)
    options, name = named(context), str(parameter.name)
    before = getattr(options, name)
    if before and before != value:
        raise click.UsageError(f"{_option(name)} is given twice: {before!r} and {value!r}", context)
    setattr(options, name, value)


def check_not_empty(parameter: click.Parameter, value: Any) -> None:
    """Refuse an option or argument that is given and says nothing.

    Raises:
        UsageError: It is empty, or one of its values is.
    """
    if any(isinstance(each, str) and not each.strip() for each in _values(value)):
        is_option = isinstance(parameter, click.Option)
        what = parameter.opts[-1] if is_option else parameter.human_readable_name
        raise UsageError(f"{what} is empty", hint="leave it out, or say something with it")


def _values(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class Command(click.Command):
    """A command whose help ends with examples.

    What is given and empty is refused, but for the options in ``may_be_empty``.
    """

    def __init__(
        self,
        *args: Any,
        examples: tuple[str, ...] = (),
        may_be_empty: tuple[str, ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.examples = examples
        self.may_be_empty = may_be_empty

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            if parameter.name in ctx.params and parameter.name not in self.may_be_empty:
                check_not_empty(parameter, ctx.params[parameter.name])
        return rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


class Group(click.Group):
    """A group of commands whose help ends with examples."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


def write_examples(examples: tuple[str, ...], formatter: click.HelpFormatter) -> None:
    """Write examples as the last section of a help text, one a line."""
    if examples:
        formatter.write("\nExamples:\n")
        formatter.write("".join(f"  {example}\n" for example in examples))


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
