"""The bots that ship with Onelane: `HANDLER=onelane.handlers.echo:handle`."""
