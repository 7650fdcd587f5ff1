"""The command C{gateway page}: where the operator's page is, with its token."""

from __future__ import annotations

import click

from gateway.errors import GatewayError
from gateway.places import configured
from gateway.terminal import Fails, printable


@click.command()
@click.option("--config", "path", metavar="FILE", help="Configuration of the gateway.")
@click.option("--data-dir", metavar="DIR", help="Data directory of the gateway on this machine.")
def page(path: str | None, data_dir: str | None) -> None:
    """Print the address of the operator's page, with the token that it asks for: keep it to yourself."""
    try:
        config = configured(path, data_dir)
        where = config.page
    except GatewayError as error:
        raise Fails(printable(str(error))) from error
    if where is None:
        raise Fails("there is no page: section [web], key 'listen'")
    file = config.token_file
    try:
        token = file.read_text().strip()
    except OSError as error:
        raise Fails(f"{file}: {error.strerror}; no gateway with a page has run there") from error
    host, port = where
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    click.echo(f"http://{f'[{host}]' if ':' in host else host}:{port}/#token={token}")
