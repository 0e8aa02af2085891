"""A group of verbs, each in a module of its own that is imported when it is called."""

from __future__ import annotations

from importlib import import_module

import click

from graph_restore.errors import did_you_mean


class Verbs(click.Group):
    """The verbs of a package: a module there for each, with its click command as `command`."""

    package = ""
    verbs: tuple[str, ...] = ()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the verbs, in the order of the help."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of this name, None for another."""
        if cmd_name not in self.verbs:
            return None
        found: click.Command = import_module(f"{self.package}.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in click; UsageError with near names, or all, for a verb that there is not."""
        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            near = did_you_mean(args[0], self.verbs) or f"; the verbs are {', '.join(self.verbs)}"
            raise click.UsageError(f"no verb {args[0]!r}{near}", ctx)
        return super().resolve_command(ctx, args)
