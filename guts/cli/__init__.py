"""The ``guts`` command.

Data goes to stdout, everything else to stderr. Every command takes ``--json``: its result is then one JSON
value on stdout. An error is ``error: …`` and mostly a ``hint: …`` on stderr; with ``--json`` it is
``{"error": …}``, also on stderr, so that stdout is either the result or empty. The exit status is
``guts.errors.ExitStatus``.

A command is loaded when it is used (``root``): ``guts --help`` imports click and little else. Commands that
need a node speak to it over its control socket with the standard library (``client``), because importing
aiohttp takes longer than most of them run. Modules that import PyNaCl, SQLAlchemy or the node do so inside
the command.

Not promised: that texts for people stay the same. Scripts read ``--json``, codes and exit statuses.
"""


def main() -> int:
    """Run the command line of this process and return its exit status."""
    from guts.cli.root import run

    return run()
